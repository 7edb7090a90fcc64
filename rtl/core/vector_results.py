"""What the vector unit does with the results of its lanes: codes, the greatest magnitude."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from tritloom.rtl.core.vector_memory import CodeQueue, VectorMemory
from tritloom.rtl.core.vector_pipeline import rounded
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.float_convert import CODE_BITS, FloatToInt
from tritloom.rtl.lib.float_divide import FloatDivide
from tritloom.rtl.lib.floats import register
from tritloom.rtl.spec.vector_cycles import wrap_pause
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_interpreter import floor_pattern
from tritloom.rtl.spec.vector_program import Operation

__all__ = ["code_queue", "greatest", "quotient_word", "row_enters"]


def row_enters(m: Module, config: VectorConfig, enters: Value, begins: Value) -> Value:
    """Whether the elements of the next row of interleaved sums may enter.

    `enters` marks elements of a step with `wrap`, `begins` a step before its first element.
    """
    row = Signal(range(WRAP_WORDS // config.lanes))  # elements of the row that entered
    rest = Signal(range(wrap_pause(config) + 1))
    with m.If(rest != 0):
        m.d.sync += rest.eq(rest - 1)
    with m.If(enters):
        m.d.sync += row.eq(row + 1)
        with m.If(row.all()):
            m.d.sync += rest.eq(wrap_pause(config))
    with m.If(begins):
        m.d.sync += [row.eq(0), rest.eq(0)]
    return rest == 0


def code_queue(
    m: Module, enters: Value, valids: Sequence[Value], results: Sequence[Any]
) -> CodeQueue:
    """The results as codes, in a queue to the core; `valids` tell of each a cycle before."""
    codes: list[Value] = []
    for lane, result in enumerate(results):
        to_code = FloatToInt(CODE_BITS)
        m.submodules["to_code" if len(results) == 1 else f"to_code_{lane}"] = to_code
        m.d.comb += to_code.i.eq(result)
        codes.append(to_code.o)
    late = to_code.latency + 1
    m.submodules.queue = queue = CodeQueue(len(results))
    m.d.comb += [queue.enters.eq(enters), queue.i_valid.eq(delay(m, valids[0], late))]
    if len(results) == 1:
        m.d.comb += queue.i.eq(codes[0])
    else:
        last = sum(valids[2:], valids[1])  # each lane is valid only with the one before
        m.d.comb += [
            Cat(queue.i.codes).eq(Cat(codes)),
            queue.i.last.eq(delay(m, last, late)),
        ]
    return queue


def quotient_word(
    m: Module, config: VectorConfig, memory: VectorMemory, divide: FloatDivide, step: Any
) -> Value:
    """The word of a DIVIDE or ROOT, one cycle after `divide` has it."""
    operands = divide.i.payload
    m.d.comb += [
        operands.a.as_value().eq(memory.o_a[0]),
        operands.b.as_value().eq(memory.o_b[0]),
        operands.root.eq(step.operation == Operation.ROOT),
        operands.long.eq(step.operation == Operation.PRODUCT),
    ]
    number = divide.o.payload.number.as_value()
    half = step.bfloat16 if config.bfloat16 else Const(0)
    return rounded(m, config, number, half, "quotient")


def greatest(
    m: Module,
    config: VectorConfig,
    results: Sequence[Any],
    valids: Sequence[Value],
    begins: Value,
    step: Any,
) -> Value:
    """The greatest magnitude of a PRODUCT's results, and 1e-5 at least.

    It is there one cycle later, and one more for each time that the number of lanes is halved.
    It begins with 1e-5, so nothing is compared at the end. Patterns of magnitudes are in the
    order of the magnitudes.
    """
    maxima: list[Value] = []
    for result, valid in zip(results, valids, strict=True):
        size = Cat(result.fraction, result.exponent)
        maximum = Signal(len(size), name="maximum")
        with m.If(valid & (size > maximum)):
            m.d.sync += maximum.eq(size)
        floor: Value = Const(floor_pattern(False), len(size))
        if config.bfloat16:
            floor = Mux(step.bfloat16, floor_pattern(True), floor)
        with m.If(begins):
            m.d.sync += maximum.eq(floor)
        maxima.append(maximum)
    while len(maxima) > 1:
        pairs = zip(maxima[::2], maxima[1::2], strict=True)
        maxima = [register(m, Mux(one > other, one, other)) for one, other in pairs]
    return maxima[0]
