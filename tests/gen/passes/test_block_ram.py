"""Registers behind block RAM: which ones move into the blocks; the design runs as before."""

import json
from dataclasses import replace

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tests.support.netlists import assert_runs_as_before
from tritloom.boards.families.ecp5 import ECP5
from tritloom.boards.families.family import TOP
from tritloom.gen.passes import synthesis
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import PACKET

ABSORBED = ("register", "enable", "half")
LEFT = ("second user", "several enables", "reset", "init", "output")


class Late(wiring.Component):
    """A memory of `width` bits, written and read at any time, and a register of a kind behind it.

    Each byte that comes is one cycle of work. The response is the XOR of all that is read. In the
    kind `output` what the memory reads is an output of the design.
    """

    def __init__(self, kind: str, width: int, depth: int) -> None:
        self.kind, self.width, self.depth = kind, width, depth
        packets = stream.Signature(PACKET)
        raw = {"raw": Out(width)} if kind == "output" else {}
        super().__init__({"i": In(packets), "o": Out(packets), **raw})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind, width = self.kind, self.width
        work = Signal()
        past = Signal(32 + width)
        noise = Cat(self.i.payload.data, past)
        m.submodules.memory = memory = block_ram(width, self.depth)
        write, read = memory.write_port(), ReadPort(m, memory)
        low = len(read.addr) - 1
        side = noise[5]  # one half is written, the other read: no word is both at once
        m.d.comb += [
            work.eq(self.i.valid & self.o.ready),
            self.i.ready.eq(self.o.ready),
            self.o.valid.eq(self.i.valid),
            self.o.payload.last.eq(self.i.payload.last),
            write.addr.eq(Cat(noise[:low], side)),
            write.data.eq(noise[40:]),
            write.en.eq(work & noise[3]),
            read.addr.eq(Cat(noise[20 : 20 + low], ~side)),
            read.en.eq(work & noise[4]),
        ]
        with m.If(work):
            m.d.sync += past.eq(noise)

        late = Signal(width, reset_less=kind != "reset", init=int(kind == "init"))
        for n in range(width):
            enable = {
                "enable": work & noise[7],
                "reset": work & noise[7],
                "several enables": work & noise[7 + n % 2],
            }
            with m.If(enable.get(kind, 1)):
                m.d.sync += late[n].eq(read.data[n])
        results: Value = late[::2] if kind == "half" else late
        if kind == "second user":
            results = Cat(results, read.data[-1])
        if kind == "output":
            m.d.comb += self.raw.eq(read.data)
        total: Value = results[:8]
        for at in range(8, len(results), 8):
            total = total ^ results[at : at + 8]
        m.d.comb += self.o.payload.data.eq(total)
        return m


def convert(kind: str, width: int, depth: int) -> str:
    return rtlil.convert(Late(kind, width, depth), emit_src=False)


def count(text: str, kind: str) -> int:
    cells = Netlist(json.loads(text), TOP).cells.values()
    return sum(cell["type"] == kind for cell in cells)


def registers(text: str) -> set[tuple[str, str]]:
    """Of each block: the modes of its ports' output registers."""
    cells = Netlist(json.loads(text), TOP).cells.values()
    blocks = [cell["parameters"] for cell in cells if cell["type"] == "DP16KD"]
    return {(block["REGMODE_A"], block["REGMODE_B"]) for block in blocks}


@pytest.mark.sim
class TestOutputRegisters:
    @pytest.mark.parametrize("kind", ABSORBED)
    def test_absorbed(self, kind: str) -> None:
        netlist = synthesise(convert(kind, 18, 1024), "ecp5")
        assert registers(netlist) == {("NOREG", "OUTREG")}
        assert count(netlist, "TRELLIS_FF") == 32 + 18

    @pytest.mark.parametrize("kind", LEFT)
    def test_left(self, kind: str) -> None:
        netlist = synthesise(convert(kind, 18, 1024), "ecp5")
        assert registers(netlist) == {("NOREG", "NOREG")}
        assert count(netlist, "TRELLIS_FF") == 32 + 2 * 18

    @pytest.mark.parametrize(("kind", "mode"), [("enable", "OUTREG"), ("several enables", "NOREG")])
    def test_both_ports_of_a_wide_block(self, kind: str, mode: str) -> None:
        assert registers(synthesise(convert(kind, 36, 512), "ecp5")) == {(mode, mode)}

    def test_some_blocks_of_a_memory(self) -> None:
        """What looks at one bit keeps the registers of its block only."""
        netlist = synthesise(convert("second user", 36, 1024), "ecp5")
        assert registers(netlist) == {("NOREG", "OUTREG"), ("NOREG", "NOREG")}

    @pytest.mark.sim
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "width", "depth"),
        [
            *((kind, 18, 1024) for kind in (*ABSORBED, *LEFT)),
            *((kind, 36, 512) for kind in ("enable", "several enables")),
            ("second user", 36, 1024),
        ],
    )
    def test_runs_as_before(self, kind: str, width: int, depth: int) -> None:
        assert_runs_as_before(convert(kind, width, depth))

    @pytest.mark.sim
    @pytest.mark.slow
    def test_second_script(self, monkeypatch: pytest.MonkeyPatch) -> None:
        second = replace(ECP5, synthesis=ECP5.synthesis[1:])
        monkeypatch.setattr(synthesis, "load_family", lambda name: second)
        assert_runs_as_before(convert("several enables", 36, 512))
