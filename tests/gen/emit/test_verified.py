"""A design with a name of its own and the pin names of AXI4-Stream passes the packaged benches."""

import pytest

from tritloom.gen.emit.generate import generate
from tritloom.rtl.links.port_names import AXI
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify.run import verify


@pytest.mark.sim
@pytest.mark.slow
def test_axi_names(tmp_path):
    generate(TINY, tmp_path, "core_b", AXI)
    result = verify(tmp_path)
    assert [bench.name for bench in result.benches if not bench.ok] == []
    assert result.ok
