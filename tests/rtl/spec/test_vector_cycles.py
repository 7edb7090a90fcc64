# amaranth: UnusedElaboratable=no
"""The cycles that the contract of the vector unit counts are those of its blocks.

`tests/rtl/core/test_vector_unit.py` measures whole steps.
"""

from tritloom.rtl.lib.float_add import FloatAdd
from tritloom.rtl.lib.float_convert import FloatNarrow, IntToFloat
from tritloom.rtl.lib.float_divide import FloatDivide
from tritloom.rtl.lib.float_multiply import FloatMultiply
from tritloom.rtl.lib.float_scale import FloatScale
from tritloom.rtl.spec import vector_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig


def test_blocks():
    assert FloatScale.latency == vector_cycles.SCALE_CYCLES
    assert FloatMultiply.latency == vector_cycles.SECOND_CYCLES
    assert FloatAdd.latency == vector_cycles.ADD_CYCLES
    assert FloatNarrow.latency == 1
    assert {IntToFloat(bits).latency for bits in range(2, 26)} == {vector_cycles.INTEGER_CYCLES}
    divide = FloatDivide()
    assert divide.latency == vector_cycles.QUOTIENT_CYCLES
    assert divide.long_latency == vector_cycles.RECIPROCAL_CYCLES


def test_pipeline():
    assert vector_cycles.pipeline_cycles(VectorConfig()) == 17
    assert vector_cycles.pipeline_cycles(VectorConfig(bfloat16=True)) == 20
    assert vector_cycles.pipeline_cycles(VectorConfig(multipliers=2)) == 22
    assert vector_cycles.pipeline_cycles(VectorConfig(multipliers=2, bfloat16=True)) == 26
