"""Scaling units: a group's integer sum, times its scale, is added to its row's total.

Both units take the sum of a group in each cycle and keep a total for each row. `GroupFixed` adds
exactly and rounds once, at the end (`FixedToFloat`). `GroupFloat` rounds every operation, in the
order of ggml's plain C code. `tritloom.rtl.spec.groups` states what they compute.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import add_under, delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.float_add import FloatAdd
from tritloom.rtl.lib.float_convert import IntToFloat
from tritloom.rtl.lib.float_multiply import FloatMultiply
from tritloom.rtl.lib.floats import float_layout, normalize, register, shift_steps
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32
from tritloom.rtl.spec.groups import HALF_PLACES
from tritloom.rtl.spec.scale_facts import SLICE_BITS, fixed_bits

__all__ = ["FixedToFloat", "GroupFixed", "GroupFloat"]

HALF_BITS = 16
HALF_FRACTION_BITS = 10
HALF_EXPONENT_BITS = 5
HALF_PRECISION = HALF_FRACTION_BITS + 1
HALF_BIAS = 15
READ_CYCLES = 3
"""Cycles from a row's number to its total: memory, register, choice of 0."""


def _require(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} must be {least} to {most}, not {value}")


class _Scale:
    """The parts of a scale of half precision."""

    def __init__(self, scale: Value) -> None:
        self.fraction = scale[:HALF_FRACTION_BITS]
        self.exponent = scale[HALF_FRACTION_BITS : HALF_FRACTION_BITS + HALF_EXPONENT_BITS]
        self.negative = scale[-1]
        self.normal = self.exponent.any()
        # Subnormal numbers have the exponent of the smallest normal ones.
        self.power = Cat(self.exponent[0] | ~self.normal, self.exponent[1:])
        self.size = Cat(self.fraction, self.normal)
        self.finite = ~self.exponent.all()


def _totals(
    m: Module, bits: int, rows: int, row: Value, first: Value, write: tuple[Value, Value, Value]
) -> Value:
    """Add the memory of totals.

    Parameters
    ----------
    m : module that the memory is added to
    bits, rows : its size
    row, first : what to read, and whether it is 0 instead
    write : row, total and whether to write it

    Returns
    -------
    The total of `row`, `READ_CYCLES` later; 0 where `first` was set.
    """
    words = []
    for start in range(0, bits, SLICE_BITS):
        size = min(SLICE_BITS, bits - start)
        m.submodules[f"totals_{start}"] = memory = block_ram(size, rows)
        port, read = memory.write_port(), ReadPort(m, memory)
        m.d.comb += [
            read.addr.eq(row),
            port.addr.eq(write[0]),
            port.data.eq(write[1][start : start + size]),
            port.en.eq(write[2]),
        ]
        words.append(register(m, read.data))
    old = Cat(words)
    # A choice of zero, not a mask: the register is then reset, which takes no LUTs.
    return register(m, Mux(delay(m, first, READ_CYCLES - 1, reset_less=True), 0, old), bits)


class GroupFixed(wiring.Component):
    """total[row] += sum · scale, exactly, in units of 2^-24: `groups.fixed_totals`.

    Parameters
    ----------
    sum_bits : width of a sum, at most 17
    rows : totals that are kept
    groups : most sums that are added to a total
    checked : whether it has the output `bad`

    Members
    -------
    sum : in, signed `sum_bits`
        A group's sum, a new one in each cycle.
    scale : in, 16 bits
        Its scale in half precision.
    row : in, number
        The total to which the product is added. It must not come again for `again` cycles.
    first : in, 1 bit
        The total was 0.
    enable : in, 1 bit
        The new total is kept.
    o : out, signed `bits`
        The new total, `latency` cycles after its sum.
    bad : out, 1 bit
        With `o`: the scale was not finite, and `o` means nothing.
    """

    sum: Signal
    scale: Signal
    row: Signal
    first: Signal
    enable: Signal
    o: Signal
    bad: Signal
    latency = 6
    """Cycles from a sum to its total: shift twice, multiply, shift twice, add."""
    again = READ_CYCLES + 2
    """Cycles after which a row may come again."""

    def __init__(
        self, sum_bits: int = 17, rows: int = 4096, groups: int = 256, *, checked: bool = True
    ) -> None:
        _require("sum_bits", sum_bits, 2, 17)
        _require("rows", rows, 2, 1 << 16)
        _require("groups", groups, 1, 1 << 12)
        self.sum_bits, self.rows, self.groups = sum_bits, rows, groups
        self.checked = checked
        self.bits = fixed_bits(sum_bits, groups)
        super().__init__(
            {
                "sum": In(signed(sum_bits)),
                "scale": In(HALF_BITS),
                "row": In(range(rows)),
                "first": In(1),
                "enable": In(1),
                "o": Out(signed(self.bits)),
                **({"bad": Out(1)} if checked else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        scale = _Scale(self.scale)
        # The product is shifted by `power`, 1 to 30. Shifts by 1, 2 and 4 are made of the factors,
        # which fit one multiplier of 18 × 18 bits then; those by 8 and 16 of the product.
        shift = scale.power
        a = register(m, Mux(shift[0], self.sum.shift_left(1), self.sum))
        b = register(m, Mux(shift[1], scale.size.shift_left(2), scale.size))
        a, b = register(m, a), register(m, Mux(delay(m, shift[2], 1), b.shift_left(4), b))
        product = register(m, a * b, name="product")
        eight = register(m, Mux(delay(m, shift[3], 3), product.shift_left(8), product))
        shifted = Mux(delay(m, shift[4], 4), eight.shift_left(16), eight)
        # Bit 0 is always 0, because `power` is not.
        term = register(m, shifted.shift_right(1), signed(self.bits))
        new = Signal(self.bits, reset_less=True)
        write = (
            delay(m, self.row, self.latency, reset_less=True),
            new,
            delay(m, self.enable, self.latency),
        )
        early = self.latency - 1 - READ_CYCLES
        row = delay(m, self.row, early, reset_less=True)
        first = delay(m, self.first, early, reset_less=True)
        old = _totals(m, self.bits, self.rows, row, first, write)
        negative = delay(m, scale.negative, self.latency - 1, reset_less=True)
        m.d.sync += new.eq(add_under(old, term, negative))
        m.d.comb += self.o.eq(new)
        if self.checked:
            bad = ~scale.finite & self.enable
            m.d.comb += self.bad.eq(delay(m, bad, self.latency))
        return m


class FixedToFloat(wiring.Component):
    """A total of `GroupFixed` as float32, rounded, in each cycle: `groups.fixed_to_float`.

    Parameters
    ----------
    bits : width of the total

    Members
    -------
    i : in, signed `bits`
        In units of 2^-24.
    o : out, float32
        `latency` cycles after its total.
    """

    i: Signal
    o: Any

    def __init__(self, bits: int = fixed_bits(17, 256)) -> None:
        self.bits = bits
        self._convert = IntToFloat(bits)
        super().__init__({"i": In(signed(bits)), "o": Out(float_layout(FLOAT32))})

    @property
    def latency(self) -> int:
        """Cycles from total to number: as an integer, then its exponent."""
        return self._convert.latency + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.convert = convert = self._convert
        # The exponent of an integer is at least that of 1, so it does not become too small.
        exponent = Mux(convert.o.exponent.any(), convert.o.exponent - HALF_PLACES, 0)
        m.d.comb += convert.i.eq(self.i)
        m.d.sync += [
            self.o.sign.eq(convert.o.sign),
            self.o.exponent.eq(exponent),
            self.o.fraction.eq(convert.o.fraction),
        ]
        return m


class _HalfToFloat(wiring.Component):
    """A number of half precision as float32, exactly; subnormal ones too.

    Members
    -------
    i : in, 16 bits
    o : out, float32
        `latency` cycles after its number; infinity if it was not finite.
    """

    i: Signal
    o: Any
    latency = 2
    """Cycles from number to number: normalize in two steps."""

    def __init__(self) -> None:
        super().__init__({"i": In(HALF_BITS), "o": Out(float_layout(FLOAT32))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        scale = _Scale(self.i)
        steps = shift_steps(HALF_PRECISION)
        coarse, made = normalize(m, scale.size, steps[:2], "coarse")
        coarse, made = register(m, coarse), register(m, made)
        normal, made_last = normalize(m, coarse, steps[2:], "fine")
        power = register(m, scale.power)
        finite, negative = register(m, scale.finite), register(m, scale.negative)
        exponent = power + (FLOAT32.bias - HALF_BIAS) - Cat(made_last, made)
        field = Signal(FLOAT32.exponent_bits)
        m.d.comb += field.eq(exponent)
        number = Signal(float_layout(FLOAT32), reset_less=True, name="number")
        spare = FLOAT32.fraction_bits - HALF_FRACTION_BITS
        m.d.sync += [
            number.sign.eq(negative),
            number.exponent.eq(Mux(finite, Mux(normal[-1], field, 0), FLOAT32.not_finite)),
            number.fraction.eq(Cat(Const(0, spare), normal[:-1])),
        ]
        m.d.comb += self.o.eq(number)
        return m


class GroupFloat(wiring.Component):
    """total[row] = RN(total[row] + RN(sum · RN(act · scale))): `groups.float_totals`.

    Parameters
    ----------
    sum_bits : width of a sum, at most 17
    rows : totals that are kept

    Members
    -------
    sum : in, signed `sum_bits`
        A group's sum, a new one in each cycle.
    scale : in, 16 bits
        The scale of its weights in half precision.
    act : in, float32
        The scale of its activations.
    row, first, enable : in
        As those of `GroupFixed`; a row must not come again for `again` cycles.
    o : out, float32
        The new total, `latency` cycles after its sum; not finite if anything before it was not.
    """

    sum: Signal
    scale: Signal
    act: Any
    row: Signal
    first: Signal
    enable: Signal
    o: Any
    latency = _HalfToFloat.latency + 2 * FloatMultiply.latency + FloatAdd.latency
    """Cycles from a sum to its total."""
    again = FloatAdd.latency + READ_CYCLES + 1
    """Cycles after which a row may come again."""

    def __init__(self, sum_bits: int = 17, rows: int = 4096) -> None:
        _require("sum_bits", sum_bits, 2, 17)
        _require("rows", rows, 2, 1 << 16)
        self.sum_bits, self.rows = sum_bits, rows
        number = float_layout(FLOAT32)
        super().__init__(
            {
                "sum": In(signed(sum_bits)),
                "scale": In(HALF_BITS),
                "act": In(number),
                "row": In(range(rows)),
                "first": In(1),
                "enable": In(1),
                "o": Out(number),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.half = half = _HalfToFloat()
        m.submodules.convert = convert = IntToFloat(self.sum_bits)
        m.submodules.both = both = FloatMultiply(b_precision=HALF_PRECISION)
        m.submodules.scaled = scaled = FloatMultiply(b_precision=self.sum_bits)
        m.submodules.add = add = FloatAdd()
        late = half.latency + both.latency
        m.d.comb += [
            half.i.eq(self.scale),
            both.i_a.eq(delay(m, self.act.as_value(), half.latency, reset_less=True)),
            both.i_b.eq(half.o),
            convert.i.eq(delay(m, self.sum, late - convert.latency, reset_less=True)),
            scaled.i_a.eq(both.o),
            scaled.i_b.eq(convert.o),
            add.i_a.eq(scaled.o),
            self.o.eq(add.o),
        ]
        early = late + scaled.latency - READ_CYCLES
        write = (
            delay(m, self.row, self.latency, reset_less=True),
            add.o.as_value(),
            delay(m, self.enable, self.latency),
        )
        row = delay(m, self.row, early, reset_less=True)
        first = delay(m, self.first, early, reset_less=True)
        old = _totals(m, FLOAT32.bits, self.rows, row, first, write)
        m.d.comb += add.i_b.eq(old)
        return m
