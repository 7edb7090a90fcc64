"""Gate level: the vector unit in the cells of a family does in each cycle what its RTL does."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tests.support.vector_units import SUM_BITS
from tritloom.boards.families.family import load_family
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Step, encode_program
from tritloom.sim.device.vectors import run_vectors
from tritloom.sim.gates.gates import simulatable

CONFIG = VectorConfig(words=64)
HALF = CONFIG.words // 2
CYCLES = 700
"""Of one program: it waits for the core at random."""
PROGRAMS = 24
INPUTS = {
    "address": 6,
    "put": 1,
    "word": 32,
    "step_write": 1,
    "step_address": 9,
    "step_low": 48,
    "step_high": 48,
    "start": 1,
    "code_ready": 1,
    "run_ready": 1,
    "sum_valid": 1,
    "sum": SUM_BITS,
}
OUTPUTS = {
    "got": 32,
    "busy": 1,
    "not_finite": 1,
    "stall": 1,
    "code_valid": 1,
    "code": 8,
    "run_valid": 1,
    "run": 8,
    "sum_ready": 1,
}


class EachCycle(wiring.Component):
    """A vector unit behind streams of all its inputs and of all its outputs, one set a cycle."""

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(INPUTS))),
                "o": Out(stream.Signature(data.StructLayout(OUTPUTS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = VectorUnit(self.config, SUM_BITS)
        i, o = self.i.payload, self.o.payload
        step = Value.cast(unit.step)
        m.d.comb += [
            self.i.ready.eq(1),
            self.o.valid.eq(self.i.valid),
            unit.address.eq(i.address),
            unit.put.eq(i.put),
            unit.word.eq(i.word),
            unit.step_write.eq(i.step_write),
            unit.step_address.eq(i.step_address),
            step.eq(Cat(i.step_low, i.step_high)),
            unit.start.eq(i.start),
            unit.o_code.ready.eq(i.code_ready),
            unit.o_run.ready.eq(i.run_ready),
            unit.i_sum.valid.eq(i.sum_valid),
            unit.i_sum.payload.eq(i.sum.as_signed()),
            o.got.eq(unit.got),
            o.busy.eq(unit.busy),
            o.not_finite.eq(unit.not_finite),
            o.stall.eq(unit.stall),
            o.code_valid.eq(unit.o_code.valid),
            o.code.eq(unit.o_code.payload.as_unsigned()),
            o.run_valid.eq(unit.o_run.valid),
            o.run.eq(unit.o_run.payload),
            o.sum_ready.eq(unit.i_sum.ready),
        ]
        return m


def random_step(rng):
    """A step that reads one half of the memory and writes the other.

    What a step would read while it is written is not defined, and differs between RTL and cells.
    """
    count = int(rng.integers(1, 24))
    half = int(rng.integers(0, 2)) * HALF
    a, b, d = (int(each) for each in rng.integers(0, HALF - count, 3))
    a, b, d = a + half, b + half, d + HALF - half
    match int(rng.integers(0, 8)):
        case 0:
            return Step(operation=Operation.DIVIDE, a=a, b=b, d=d)
        case 1:
            return Step(operation=Operation.ROOT, a=a, d=d)
        case 2:
            return Step(operation=Operation.MAXIMUM, d=d)
        case 3:
            return Step(operation=Operation.RUN, a=int(rng.integers(0, 64)))
    factor = Factor(int(rng.integers(0, 4)))
    adds = factor != Factor.VECTOR and rng.random() < 0.5
    codes = not adds and rng.random() < 0.3
    fields = {"a": a, "from_core": False} if rng.random() < 0.6 else {"from_core": True}
    return Step(
        operation=Operation.PRODUCT,
        factor=factor,
        relu=bool(rng.random() < 0.3),
        add=bool(adds),
        wrap=bool(adds and rng.random() < 0.5),
        codes=bool(codes),
        count=count,
        b=b,
        d=0 if codes else d // HALF * HALF if adds else d,
        **fields,
    )


def stimuli(rng):
    """All inputs, each cycle: words and steps are written, then the program runs and is read."""
    columns = {name: np.zeros(0, np.uint64) for name in INPUTS}
    for _ in range(PROGRAMS):
        steps = [random_step(rng) for _ in range(4)] + [Step(operation=Operation.END)]
        cycles = {name: np.zeros(CYCLES, np.uint64) for name in INPUTS}
        words = (rng.standard_normal(64) * 2.0 ** rng.integers(-9, 9)).astype(np.float32)
        if rng.random() < 0.2:
            words[rng.integers(0, 64)] = rng.choice(np.float32([np.inf, 1e-40, 3e38, 0, -0.0]))
        cycles["put"][:64] = 1
        cycles["word"][:64] = words.view(np.uint32)
        cycles["address"][:] = np.arange(CYCLES) % 64
        for number, step in enumerate(steps):
            encoded = int.from_bytes(encode_program([step]), "little")
            cycles["step_write"][number] = 1
            cycles["step_address"][number] = number
            cycles["step_low"][number] = encoded & ((1 << 48) - 1)
            cycles["step_high"][number] = encoded >> 48
        cycles["start"][70] = 1
        for name, chance in (("code_ready", 0.8), ("run_ready", 0.7), ("sum_valid", 0.8)):
            cycles[name][:] = rng.random(CYCLES) < chance
        cycles["sum"][:] = rng.integers(0, 1 << SUM_BITS, CYCLES)
        columns = {name: np.concatenate([columns[name], cycles[name]]) for name in INPUTS}
    return columns


def outputs_of(results):
    """Each output by name, from the words of the results."""
    bits = np.unpackbits(results.view(np.uint8), axis=1, bitorder="little")
    columns, start = {}, 0
    for name, width in OUTPUTS.items():
        weights = 1 << np.arange(width, dtype=np.uint64)
        columns[name] = bits[:, start : start + width] @ weights
        start += width
    return columns


def assert_same(results, expected):
    """All outputs are equal. `got` is defined only while the unit is not busy.

    A busy unit may read a word that it writes, if it does not need the word.
    """
    idle = expected["busy"] == 0
    for late in range(1, VectorUnit.GET_CYCLES + 1):
        idle[late:] &= expected["busy"][:-late] == 0
    assert idle.sum() > PROGRAMS * CYCLES // 10
    for name, column in results.items():
        cycles = idle if name == "got" else slice(None)
        assert (column[cycles] == expected[name][cycles]).all(), name


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("family", ["ecp5"])
def test_every_cycle(family):
    """Random programs, with random pauses of the core."""
    inputs = stimuli(np.random.default_rng(11))

    def gates(design):
        netlist = synthesise(design, family)
        assert "MULT18X18D" in netlist
        return simulatable(netlist, load_family(family).gate_models)

    expected = outputs_of(run_vectors(EachCycle(CONFIG), **inputs))
    # The programs did all of it, and most of them ended.
    assert (expected["code_valid"] * inputs["code_ready"]).sum() > 30
    assert (expected["run_valid"] * inputs["run_ready"]).sum() > 5
    assert (expected["sum_ready"] * inputs["sum_valid"]).sum() > 100
    assert set(expected["not_finite"]) == set(expected["stall"]) == {0, 1}
    assert len(np.unique(expected["got"])) > 1000
    assert (expected["busy"][CYCLES - 1 :: CYCLES] == 0).sum() > PROGRAMS // 2
    results = outputs_of(run_vectors(EachCycle(CONFIG), design=gates, **inputs))
    assert_same(results, expected)
