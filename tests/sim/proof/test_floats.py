"""Proofs of the float blocks, and for each a broken line that it finds."""

import pytest

from tests.support.broken import broken
from tritloom.rtl.lib import float_add, float_convert, float_divide, float_max, float_multiply
from tritloom.rtl.lib import floats as shared
from tritloom.rtl.spec.float_units import FloatFormat
from tritloom.sim.proof import floats
from tritloom.sim.proof.formal import PropertyError, verify

FEW_DIGITS = FloatFormat(5, 2)
"""Exponents that differ by up to 30, more than the adder's shifter can move."""
MORE_DIGITS = FloatFormat(4, 3)


def bounded(component):
    """A pipeline is proved by the cycles from operands to result: it has no state beside them."""
    cycles = component.latency + 1
    return {"depth": cycles, "cover": cycles, "induction": False}


PROOFS = {
    "IntToFloat, 20 bits": (floats.from_int_nearest, lambda m: m.IntToFloat(20)),
    "IntToFloat, 32 bits": (floats.from_int_nearest, lambda m: m.IntToFloat(32)),
    "FloatToInt, 8 bits": (floats.to_int_nearest, lambda m: m.FloatToInt(8)),
    "FloatToInt, 32 bits": (floats.to_int_nearest, lambda m: m.FloatToInt(32)),
    "FloatNarrow, bfloat16": (floats.narrow_nearest, lambda m: m.FloatNarrow()),
    "FloatAdd, 3 digits": (floats.add_nearest, lambda m: m.FloatAdd(FEW_DIGITS)),
    "FloatAdd, 4 digits": (floats.add_nearest, lambda m: m.FloatAdd(MORE_DIGITS)),
    "round_product": (floats.product_nearest, lambda m: floats.RoundProduct()),
    "FloatDivide, quotient": (
        lambda component: floats.division_digits(component, "quotient"),
        lambda m: m.FloatDivide(),
    ),
    "FloatDivide, long": (
        lambda component: floats.division_digits(component, "long"),
        lambda m: m.FloatDivide(),
    ),
    "FloatDivide, root": (floats.root_digits, lambda m: m.FloatDivide()),
    "FloatDivide, rules": (
        lambda component: floats.serial_rules(component, "done"),
        lambda m: m.FloatDivide(FEW_DIGITS),
    ),
    "SerialFloatMultiply, rules": (
        lambda component: floats.serial_rules(component, "waiting"),
        lambda m: m.SerialFloatMultiply(FEW_DIGITS),
    ),
    "FloatAbsMax": (floats.absmax_contract, lambda m: m.FloatAbsMax()),
}
MODULES = {
    "IntToFloat": float_convert,
    "FloatToInt": float_convert,
    "FloatNarrow": float_convert,
    "FloatAdd": float_add,
    "round_product": shared,
    "FloatDivide": float_divide,
    "SerialFloatMultiply": float_multiply,
    "FloatAbsMax": float_max,
}


def options_of(component):
    """A block with a state is proved by induction; its covers are the end of its longest result."""
    longest = getattr(component, "long_latency", component.latency)
    if hasattr(component, "cycles"):
        return {"depth": 4, "cover": longest + 3}
    if hasattr(component, "o_finite"):
        return {"depth": 2, "cover": 4}
    return bounded(component)


@pytest.mark.formal
@pytest.mark.parametrize("name", PROOFS)
def test_proof(name):
    bench, make = PROOFS[name]
    component = make(MODULES[name.partition(",")[0]])
    options = options_of(component)
    proof = verify(bench(component), **options)
    assert proof.inductive == options.get("induction", True)
    assert proof.covers
    print(f"{name}: {proof}")  # pytest -rP shows it


BUGS = {
    "magnitudes of negative integers are one too small": (
        "IntToFloat, 20 bits",
        ("Mux(self.i[-1], -self.i, self.i)", "Mux(self.i[-1], ~self.i, self.i)"),
    ),
    "integers that tie go up": (
        "IntToFloat, 32 bits",
        ("(normal[: -p - 1].any() | kept[0])", "1"),
    ),
    "codes that tie go up": (
        "FloatToInt, 8 bits",
        ("kept + (half & (rest | kept[0]))", "kept + half"),
    ),
    "a half becomes zero": (
        "FloatToInt, 32 bits",
        ("max(1, form.bias - 1)", "form.bias"),
    ),
    "NaN becomes a number": ("FloatNarrow, bfloat16", (" & is_finite(self.i)", "")),
    "bfloat16 are cut": (
        "FloatNarrow, bfloat16",
        ("half & (x[: dropped - 1].any() | kept[0])", "half & kept[0]"),
    ),
    "a bit less is kept of the smaller number": (
        "FloatAdd, 3 digits",
        ("EXTRA_BITS = 3", "EXTRA_BITS = 2"),
    ),
    "far numbers come near": (
        "FloatAdd, 3 digits",
        ("aligned & ~far.replicate(width)", "aligned"),
    ),
    "sums that tie go up": ("FloatAdd, 4 digits", ("guard & (rest | kept[0])", "guard")),
    "a zero is always positive": (
        "FloatAdd, 4 digits",
        ("a.sign & b.sign", "a.sign & ~a.sign"),
    ),
    "products that tie go up": ("round_product", ("half & (rest | kept[0])", "half")),
    "what rounds to a normal number is flushed": (
        "round_product",
        ("zero | (field < 0)", "zero | (field <= 0)"),
    ),
    "the largest exponent is infinite": (
        "round_product",
        ("field >= form.not_finite", "field >= form.not_finite - 1"),
    ),
    "a rest as large as the divisor stays": (
        "FloatDivide, quotient",
        ("difference.eq(rest - taken)", "difference.eq(rest - taken - 1)"),
    ),
    "a reciprocal begins with a": (
        "FloatDivide, long",
        ("Mux(takes_long, 1 << (p - 1), a)", "a"),
    ),
    "a quotient is lost if the sink waits": (
        "FloatDivide, rules",
        ("& (~self.o.valid | self.o.ready)", ""),
    ),
    "a product is lost if the sink waits": (
        "SerialFloatMultiply, rules",
        ("with m.If(self.o.ready):", "with m.If(1):"),
    ),
    "the smallest number of a vector": ("FloatAbsMax", ("size > self.o", "size < self.o")),
    "a vector begins with the last one": (
        "FloatAbsMax",
        ("self.i_first | (size > self.o)", "size > self.o"),
    ),
    "a number that is not finite is forgotten": (
        "FloatAbsMax",
        ("& (self.i_first | self.o_finite)", ""),
    ),
    "a root loses the top of its rest": (
        "FloatDivide, root",
        ("Cat(pairs[-2:], left[: p + 1])", "Cat(pairs[-2:], left[: p - 1])"),
    ),
}


@pytest.mark.formal
@pytest.mark.parametrize("name", BUGS)
def test_bug_found(monkeypatch, name):
    proof, change = BUGS[name]
    bench, make = PROOFS[proof]
    copy = broken(MODULES[proof.partition(",")[0]], *change)
    if proof == "round_product":
        monkeypatch.setattr(floats, "round_product", copy.round_product)
    component = make(copy)
    with pytest.raises(PropertyError, match=r"^check_\w+.*: (fails|is not inductive)\n"):
        verify(bench(component), **options_of(component))
