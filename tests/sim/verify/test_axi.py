"""All benches on designs with AXI ports, against `AxiRam` of cocotbext-axi."""

from dataclasses import replace

import pytest

from tests.rtl.memories.test_axi import OneMore
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.links.port_names import AXI
from tritloom.rtl.memories import axi
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify.run import VerifyError, verify_design

ONE = replace(TINY, lanes=15, memory=Axi(words=64, width=64, latency_cycles=20, base=0x1000_0000))
TWO = replace(ONE, memory=Axi(words=64, width=64, ports=2, version=3, offsets=(0x3000, 0)))


def verify(config):
    return verify_design(emit(config, port_names=AXI), config, port_names=AXI, fail_fast=True)


@pytest.mark.slow
@pytest.mark.parametrize("config", [ONE, TWO], ids=["one port", "two ports, AXI3"])
def test_benches(config):
    """Packets in, results out: nothing between them and the memory differs from the reference."""
    assert verify(config).ok


@pytest.mark.slow
def test_broken(monkeypatch):
    monkeypatch.setattr(axi, "AxiReader", OneMore)
    assert not verify(ONE).ok


def test_no_model():
    config = replace(TINY, lanes=20, memory=Sdram(words=64))
    with pytest.raises(VerifyError) as raised:
        verify_design("", config)
    assert str(raised.value) == (
        "the benches have no model of memory 'sdram'; run the design on the simulated FPGA, or "
        "verify it with a memory of block RAM"
    )
