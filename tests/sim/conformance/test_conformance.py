"""The shipped checks find components that do not keep their contract."""

from dataclasses import replace

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.stream import Signature
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from tests.support.geometries import geometry
from tritloom.rtl.engines.contract import create_engine, engine_members
from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import memory_members
from tritloom.rtl.spec.plugins import engines
from tritloom.sim.conformance import engine, memory
from tritloom.sim.conformance.streams import ContractError, simulate, sink

CONFIG = geometry("select", "base3x5", 10, 2, 2, 2, 8, 6, 40)


class WrongWord(Component):
    """Block RAM that returns a wrong bit for the word at address 3."""

    def __init__(self, config):
        self.config = config
        super().__init__(memory_members(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = BlockRamMemory(self.config)
        connect(m, inner.i_read, flipped(self.i_read))
        connect(m, inner.o, flipped(self.o))
        m.d.comb += [
            inner.i_write.valid.eq(self.i_write.valid),
            self.i_write.ready.eq(inner.i_write.ready),
            inner.i_write.payload.address.eq(self.i_write.payload.address),
            inner.i_write.payload.word.eq(
                self.i_write.payload.word ^ (self.i_write.payload.address == 3)
            ),
        ]
        return m


class Void(WrongWord):
    """Block RAM whose words are all void."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.error.eq(self.o.valid)
        return m


def test_a_void_word(monkeypatch):
    monkeypatch.setattr(memory, "create_memory", Void)
    with pytest.raises(ContractError, match=r"^word 0 is void: `error` is set$"):
        memory.check_memory(CONFIG, idle=0.0, pause=0.0, seed=1)


def test_a_right_memory():
    memory.check_memory(CONFIG, idle=0.3, pause=0.3, seed=1)
    memory.check_memory(CONFIG, idle=0.0, pause=0.0, seed=1, gapless=True)


def test_a_wrong_word(monkeypatch):
    monkeypatch.setattr(memory, "create_memory", WrongWord)
    with pytest.raises(ContractError, match=r"^word 3 must be 0x[0-9a-f]+, not 0x[0-9a-f]+$"):
        memory.check_memory(CONFIG, idle=0.0, pause=0.0, seed=1)


def test_a_wrong_latency(monkeypatch):
    monkeypatch.setattr(BlockRam, "latency", lambda self, config: 9)
    message = r"^the first word must come 9 cycles after its range, not 4$"
    with pytest.raises(ContractError, match=message):
        memory.check_memory(CONFIG, idle=0.0, pause=0.0, seed=1)


def test_a_right_engine():
    engine.check_engine(CONFIG, row_groups=3, idle=0.3, seed=1)
    engine.check_engine(CONFIG, row_groups=3, idle=0.0, seed=1)


def test_a_wrong_sum(monkeypatch):
    class WrongSum(Component):
        """Select engine whose first row is negated the wrong way."""

        def __init__(self, config):
            self.config = config
            super().__init__(engine_members(config))

        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = inner = create_engine(self.config)
            for name, member in inner.signature.members.items():
                ours, theirs = getattr(self, name), getattr(inner, name)
                if name == "o_negative":
                    m.d.comb += ours.eq(theirs ^ 1)
                else:
                    m.d.comb += theirs.eq(ours) if member.flow is In else ours.eq(theirs)
            return m

    monkeypatch.setattr(engine, "create_engine", WrongSum)
    with pytest.raises(ContractError, match=r"^sums of tile 0, row group 0 must be \["):
        engine.check_engine(CONFIG, row_groups=3, idle=0.0, seed=1)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("fill_cycles", r"^the first tile must be ready in cycle 99, not \d+$"),
        ("tile_cycles", r"^a tile must begin 99 cycles after the previous tile, not \[\d+\]$"),
    ],
)
def test_wrong_facts_of_an_engine(monkeypatch, field, message):
    wrong = replace(engines["select"], **{field: lambda config: 99})
    monkeypatch.setattr(engine, "engines", {"select": wrong})
    with pytest.raises(ContractError, match=message):
        engine.check_engine(CONFIG, row_groups=3, idle=0.0, seed=1)


class Impatient(Component):
    """Offers a byte that changes before it is taken; or one that is offered in turns only."""

    def __init__(self, *, in_turns):
        self.in_turns = in_turns
        super().__init__({"o": Out(Signature(8))})

    def elaborate(self, platform):
        m = Module()
        count = Signal(8)
        m.d.sync += count.eq(count + 1)
        if self.in_turns:
            m.d.comb += self.o.valid.eq(count[0])
        else:
            m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(count)]
        return m


@pytest.mark.parametrize(
    ("in_turns", "message"),
    [
        (False, r"^the payload changed before the transfer$"),
        (True, r"^valid fell before the transfer$"),
    ],
)
def test_a_stream_that_does_not_hold(in_turns, message):
    dut, received = Impatient(in_turns=in_turns), []
    with pytest.raises(ContractError, match=message):
        simulate(dut, sink(dut.o, 40, received, pause=0.5))


def test_a_deadline():
    dut, received = Impatient(in_turns=False), []
    with pytest.raises(TimeoutError, match=r"^not done in 50 cycles$"):
        simulate(dut, sink(dut.o, 1000, received), deadline_cycles=50)
