"""The vector unit's arithmetic: one element of a PRODUCT in each cycle."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.vector_memory import WORD_BITS
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.float_add import FloatAdd
from tritloom.rtl.lib.float_convert import FloatNarrow, IntToFloat
from tritloom.rtl.lib.float_multiply import FloatMultiply
from tritloom.rtl.lib.float_scale import FloatScale
from tritloom.rtl.lib.floats import float_layout, is_finite, register
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32
from tritloom.rtl.spec.vector_cycles import OPERAND_CYCLES, READ_CYCLES, sum_cycles
from tritloom.rtl.spec.vector_facts import SUM_BITS, VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Second, kept_fields

__all__ = ["NUMBER", "VectorPipeline", "rounded", "step_layout"]

NUMBER = float_layout(FLOAT32)
ONE = FLOAT32.bias << FLOAT32.fraction_bits
"""The pattern of 1.0."""
MINUS_ZERO = 1 << 31
"""The pattern of −0.0; a number plus −0.0 is that number, whatever its sign."""


def step_layout(config: VectorConfig) -> data.StructLayout:
    """A step as the unit stores it: the fields of `kept_fields` that have bits."""
    return data.StructLayout({name: bits for name, bits in kept_fields(config).items() if bits})


def rounded(m: Module, config: VectorConfig, value: Value, flag: Value, name: str) -> Value:
    """A number, rounded to bfloat16 if `flag` is set, one cycle later.

    A unit without bfloat16 takes no cycle for it.
    """
    if not config.bfloat16:
        return value
    m.submodules[f"narrow_{name}"] = narrow = FloatNarrow(optional=True)
    m.d.comb += [narrow.i.as_value().eq(value), narrow.narrow.eq(flag)]
    return narrow.o.as_value()


class VectorPipeline(wiring.Component):
    """d[i] = RN(RN(a[i] · b[i]) + d[i]) and its variants: a PRODUCT as `Step` describes it.

    It is one lane of the unit.

    With two multipliers the product goes through the second one in any case: a step without a
    second factor multiplies by 1, which changes no number.

    An element *enters* in the cycle in which its addresses are given to the vector memory. It has
    no handshake: the user delays its own marks by `pipeline_cycles`.

    Parameters
    ----------
    config : of the vector unit
    sum_bits : width of the core's results, at most 25

    Members
    -------
    step : in, layout of `step_layout`
        The step. It, `scalar` and `reciprocal` must not change while elements are under way.
    scalar : in, 32 bits
        b[0], for the factors SCALAR and DIVISOR.
    reciprocal : in, bits
        The long reciprocal of `scalar`, for the factor DIVISOR.
    i_sum : in, signed `sum_bits`
        The core's result, in the cycle in which its element enters; for `from_core`.
    i_a, i_b : in, 32 bits
        The words of a[i], and of b[i] or d[i], `READ_CYCLES` later. With several lanes the word of
        d[i] comes `addend_cycles` + `READ_CYCLES` after its element entered.
    o : out, 32 bits
        The result, `pipeline_cycles` after its element entered.
    """

    step: Any
    scalar: Signal
    reciprocal: Signal
    i_sum: Signal
    i_a: Signal
    i_b: Signal
    o: Signal

    def __init__(self, config: VectorConfig, sum_bits: int) -> None:
        if not 2 <= sum_bits <= SUM_BITS:
            raise ConfigError(f"sum_bits must be 2 to {SUM_BITS}, not {sum_bits}")
        self.config, self.sum_bits = config, sum_bits
        super().__init__(
            {
                "step": In(step_layout(config)),
                "scalar": In(WORD_BITS),
                **({"second_scalar": In(WORD_BITS)} if config.multipliers == 2 else {}),
                "reciprocal": In(FLOAT32.reciprocal_bits),
                "i_sum": In(signed(sum_bits)),
                "i_a": In(WORD_BITS),
                "i_b": In(WORD_BITS),
                "o": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, step = self.config, self.step
        half = step.bfloat16 if config.bfloat16 else Const(0)
        wait = sum_cycles(config) - READ_CYCLES
        a_word = delay(m, self.i_a, wait, reset_less=True)
        b_early = delay(m, self.i_b, wait - 1, reset_less=True)
        b_word = register(m, b_early)

        m.submodules.convert = convert = IntToFloat(self.sum_bits)
        m.d.comb += convert.i.eq(self.i_sum)
        from_core = rounded(m, config, convert.o.as_value(), half, "sum")
        chosen, first, second = (Signal(NUMBER, name=n) for n in ("chosen", "first", "second"))
        m.d.comb += chosen.as_value().eq(Mux(step.from_core, from_core, a_word))
        relu: Value = step.relu
        if config.multipliers == 2:
            relu = relu & (step.second != Second.SAME)
        m.d.comb += first.as_value().eq(_relu(chosen, relu))
        # Each of the three factors is zero unless it is chosen: `b_vector` and `scalar_factor` by
        # a register, whose reset takes no LUTs.
        b_vector = register(m, Mux(step.factor == Factor.VECTOR, b_early, 0), WORD_BITS)
        is_scalar = (step.factor == Factor.SCALAR) | (step.factor == Factor.DIVISOR)
        scalar_factor = register(m, Mux(is_scalar, self.scalar, 0), WORD_BITS)
        same = (step.factor == Factor.SAME).replicate(WORD_BITS)
        m.d.comb += second.as_value().eq(b_vector | scalar_factor | (first.as_value() & same))

        m.submodules.scale = scale = FloatScale()
        m.d.comb += [
            scale.i_a.as_value().eq(register(m, first.as_value(), name="first")),
            scale.i_b.as_value().eq(register(m, second.as_value(), name="second")),
            scale.divide.eq(step.factor == Factor.DIVISOR),
            scale.reciprocal.eq(self.reciprocal),
        ]
        product = rounded(m, config, scale.o.as_value(), half, "product")
        late = OPERAND_CYCLES + scale.latency + config.bfloat16
        if config.multipliers == 2:
            other = delay(m, b_word, late - 1, reset_less=True)
            product = rounded(m, config, self._again(m, product, other), half, "second")
            late += FloatMultiply.latency + config.bfloat16
        # The choice stands before a register, whose reset takes no LUTs.
        # Of several lanes, d comes just in time.
        third = delay(m, b_word, late - 1, reset_less=True) if config.lanes == 1 else self.i_b
        third = register(m, Mux(step.add, third, Const(MINUS_ZERO, WORD_BITS)), name="third")
        m.submodules.add = add = FloatAdd()
        m.d.comb += [add.i_a.as_value().eq(product), add.i_b.as_value().eq(third)]
        m.d.comb += self.o.eq(rounded(m, config, add.o.as_value(), half, "result"))
        return m

    def _again(self, m: Module, product: Value, word: Value) -> Value:
        """The product by the second factor; `word` is what memory has for it, a cycle before."""
        step = self.step
        first, factor = Signal(NUMBER, name="again"), Signal(NUMBER, name="second_factor")
        same = step.second == Second.SAME
        number = Signal(NUMBER, name="product")
        m.d.comb += number.as_value().eq(product)
        m.d.comb += first.as_value().eq(_relu(number, step.relu & same))
        # As of the first product, what is not chosen is zero.
        vector = register(m, Mux(step.second == Second.VECTOR, word, 0), WORD_BITS)
        one = Mux(step.second == Second.NONE, ONE, 0)
        is_scalar = step.second == Second.SCALAR
        constant = register(m, Mux(is_scalar, self.second_scalar, one), WORD_BITS)
        squares = first.as_value() & same.replicate(WORD_BITS)
        m.d.comb += factor.as_value().eq(vector | constant | squares)
        m.submodules.multiply = multiply = FloatMultiply()
        m.d.comb += [multiply.i_a.eq(first), multiply.i_b.eq(factor)]
        return multiply.o.as_value()


def _relu(number: Any, relu: Value) -> Value:
    """max(·, 0) if `relu`; a negative number that is not finite stays, so that it is noticed."""
    negative = relu & number.sign & is_finite(number)
    return number.as_value() & ~negative.replicate(WORD_BITS)
