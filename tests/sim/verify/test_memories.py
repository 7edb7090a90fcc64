"""All benches on designs with weights outside the chip: `AxiRam` of cocotbext-axi, and an SDRAM."""

from dataclasses import replace

import pytest

from tests.rtl.memories.test_axi import OneMore
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.links.port_names import AXI
from tritloom.rtl.memories import axi
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import PARTS
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify import run
from tritloom.sim.verify.run import VerifyError, verify_design
from tritloom.sim.verify.sdram import SdramChip

ONE = replace(TINY, lanes=15, memory=Axi(words=64, width=64, latency_cycles=20, base=0x1000_0000))
TWO = replace(ONE, memory=Axi(words=64, width=64, ports=2, version=3, offsets=(0x3000, 0)))


def verify(config):
    return verify_design(emit(config, port_names=AXI), config, port_names=AXI, fail_fast=True)


@pytest.mark.slow
@pytest.mark.parametrize("config", [ONE, TWO], ids=["one port", "two ports, AXI3"])
def test_benches(config):
    """Packets in, results out: nothing between them and the memory differs from the reference."""
    assert verify(config).ok


@pytest.mark.sim
def test_two_ports(monkeypatch):
    """Two benches alone, in less time: one of them loads a layer, and computes it."""
    monkeypatch.setattr(run, "BENCHES", run.BENCHES[:1])
    monkeypatch.setenv("COCOTB_TEST_FILTER", r"\b(power_up|order/idle=none)\b")
    result = verify(TWO)
    assert result.ok
    assert [bench.name for bench in result.benches] == ["power_up", "order idle=none stall=none"]


@pytest.mark.slow
def test_broken(monkeypatch):
    monkeypatch.setattr(axi, "AxiReader", OneMore)
    assert not verify(ONE).ok


@pytest.mark.slow
def test_sdram():
    """The chip's initialisation takes a thousand cycles, which each bench waits for."""
    config = replace(TINY, lanes=15, memory=Sdram(words=64), clock_hz=5_000_000)
    assert verify_design(emit(config), config).ok


@pytest.mark.slow
@pytest.mark.parametrize("hz", [8_000_000, 3_000_000])
def test_two_clocks(hz):
    """The memory's clock is faster or slower than the design's."""
    config = replace(TINY, lanes=15, memory=Sdram(words=64, clock_hz=hz), clock_hz=5_000_000)
    assert verify_design(emit(config), config, fail_fast=True).ok


def test_a_clock_without_pin():
    config = replace(TINY, lanes=20, memory=Sdram(words=64, clock_hz=60_000_000))
    text = emit(replace(config, memory=replace(config.memory, clock_hz=0)))
    with pytest.raises(VerifyError) as raised:
        verify_design(text, config)
    assert str(raised.value) == ("tritloom.v has no port memory_clk; run tritloom generate again")


def test_chip():
    """A line that is written comes back, each column in its cycle; commands without sense fail."""
    part = PARTS["ulx3s"]
    chip = SdramChip(part, 3, 100_000_000, round_trip_ns=5.0)
    nothing = (0b111, 0, 0, 0)
    columns = [0xA000 + n for n in range(8)]
    chip.cycle(0b011, 2, 77, 0)
    chip.cycle(0b100, 2, 16, columns[0])
    for column in columns[1:]:
        chip.cycle(0b111, 0, 0, column)
    chip.cycle(0b010, 0, 1 << 10, 0)
    chip.cycle(0b011, 2, 77, 0)
    given = [chip.cycle(0b101, 2, 16, 0), *(chip.cycle(*nothing) for _ in range(14))]
    # At the edge of phase 2 the columns are stable: cycles behind that of the command are the pads'
    # register, the latency, two of the phase, and the second register of the data's pads. Half a
    # cycle later they have changed.
    assert [rise for rise, _ in given] == [0] * 5 + columns + [0] * 2
    assert [fall ^ 0xFFFF for _, fall in given] == [0] * 5 + columns + [0] * 2
    chip.cycle(0b101, 2, 24, 0)  # the next line was never written
    assert [chip.cycle(*nothing)[0] for _ in range(12)] == [0] * 12
    for wrong in ((0b011, 2, 77, 0), (0b101, 1, 0, 0), (0b001, 0, 0, 0)):
        with pytest.raises(AssertionError, match=r"^SDRAM: "):
            chip.cycle(*wrong)
