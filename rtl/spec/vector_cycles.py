"""How many cycles the vector unit takes, without its hardware: a contract that tests measure."""

from collections.abc import Iterable

from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Second, Step

__all__ = [
    "OPERAND_CYCLES",
    "READ_CYCLES",
    "SCALAR_CYCLES",
    "SECOND_CYCLES",
    "addend_cycles",
    "element_cycles",
    "pipeline_cycles",
    "program_cycles",
    "step_cycles",
    "sum_cycles",
    "wrap_pause",
]

READ_CYCLES = 2
"""From an address to its word: the block RAM, and a register behind it, since block RAM is slow."""
SCALAR_CYCLES = READ_CYCLES + 1
"""In which a step reads its scalars."""
START_CYCLES = 2
"""Before the first step."""
NEXT_CYCLES = 1
"""To go on to the next token."""
DECODE_CYCLES = 1
"""At the beginning of each step; of END, all."""
SINGLE_CYCLES = 1
"""To write a single result, or to give a layer to the core."""
ASK_CYCLES = 1
"""To give operands to the divider."""
INTEGER_CYCLES = 3
"""Latency of `IntToFloat`, of integers that need not be rounded."""
OPERAND_CYCLES = 1
"""To choose the factors of a product."""
SCALE_CYCLES = 5
"""Latency of `FloatScale`."""
SECOND_CYCLES = 5
"""Latency of `FloatMultiply`."""
ADD_CYCLES = 8
"""Latency of `FloatAdd`."""
WRITE_CYCLES = 2
"""From a result to the first cycle in which its address reads it."""
QUOTIENT_CYCLES = 28
"""Latency of `FloatDivide` for quotients and roots."""
RECIPROCAL_CYCLES = 53
"""Latency of `FloatDivide` for long reciprocals."""


def sum_cycles(config: VectorConfig) -> int:
    """From a result of the core to its float; the words of the memory wait for it."""
    return INTEGER_CYCLES + config.bfloat16


def pipeline_cycles(config: VectorConfig) -> int:
    """From the entry of an element to its result: operand, product, sum, each rounded."""
    products = SCALE_CYCLES + SECOND_CYCLES * (config.multipliers - 1)
    roundings = (config.multipliers + 1) * config.bfloat16
    return sum_cycles(config) + OPERAND_CYCLES + products + ADD_CYCLES + roundings


def addend_cycles(config: VectorConfig) -> int:
    """With several lanes: from the entry of elements to the address of their d, for `add`.

    The words of d come just in time for the adder, behind the register that chooses them. So a sum
    can take its next element soon. One lane reads d at the entry of its element.
    """
    return pipeline_cycles(config) - ADD_CYCLES - config.bfloat16 - READ_CYCLES - 1


def wrap_pause(config: VectorConfig) -> int:
    """Cycles that a step with `wrap` waits after each row of interleaved sums but the last.

    The next row reads the sums that the row before it has written.
    """
    if config.lanes == 1:
        return 0
    written = pipeline_cycles(config) + WRITE_CYCLES
    return max(0, written - addend_cycles(config) - WRAP_WORDS // config.lanes)


def element_cycles(step: Step, config: VectorConfig) -> int:
    """Cycles in which elements of a PRODUCT enter, pauses between them included."""
    pauses = (step.count - 1) // WRAP_WORDS * step.wrap
    return -(-step.count // config.lanes) + pauses * wrap_pause(config)


def step_cycles(step: Step, config: VectorConfig) -> int:
    """Cycles of a step if the core's streams never make it wait.

    A RUN waits until the core has taken all codes and the layer; the cycles of the layer itself are
    waits of the step that takes its results.
    """
    cycles = DECODE_CYCLES
    if step.operation in (Operation.RUN, Operation.MAXIMUM):
        cycles += SINGLE_CYCLES
        if step.operation == Operation.MAXIMUM and config.lanes > 1:
            # The maxima of the lanes are compared.
            cycles += SCALAR_CYCLES
    elif step.operation in (Operation.DIVIDE, Operation.ROOT):
        cycles += SCALAR_CYCLES + ASK_CYCLES + QUOTIENT_CYCLES + SINGLE_CYCLES
    elif step.operation == Operation.PRODUCT:
        cycles += element_cycles(step, config) + pipeline_cycles(config)
        if step.factor in (Factor.SCALAR, Factor.DIVISOR):
            cycles += SCALAR_CYCLES
        if step.second == Second.SCALAR:
            cycles += SCALAR_CYCLES
        if step.factor == Factor.DIVISOR:
            cycles += ASK_CYCLES + RECIPROCAL_CYCLES
    return cycles


def program_cycles(steps: Iterable[Step], config: VectorConfig, tokens: int = 1) -> int:
    """Cycles in which the unit is busy, if the core's streams never make it wait.

    Parameters
    ----------
    steps : END included
    config : of the unit
    tokens : that the program computes. The steps since the last RUN begin again for each token, as
        a program begins
    """
    cycles = begins = 0
    for step in steps:
        cycles += step_cycles(step, config)
        begins += step.operation in (Operation.RUN, Operation.END)
    again = (tokens - 1) * begins * (NEXT_CYCLES + START_CYCLES)
    return START_CYCLES + tokens * cycles + again
