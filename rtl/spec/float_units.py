"""What the float blocks of the hardware compute, in NumPy, on bit patterns: their behavioural twin.

The blocks follow IEEE 754 with two exceptions, which make them small:

* A subnormal operand counts as zero, and a result below the smallest normal number becomes a zero
  of its sign. A result is rounded as if its exponent had no limit, before it is compared with that
  number.
* An operand that is not finite (infinity or NaN, which are not told apart) gives a result that is
  not finite, always: infinity. So does division by zero, and the root of a negative number. The
  host sees at the end of a chain of operations whether any of them had no result.

Each rounding, RN(…), is to the nearest number, of two equally near ones to the even one. The
functions take and return patterns as `uint32`, for any `FloatFormat`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import ConfigError

__all__ = [
    "FLOAT32",
    "FloatFormat",
    "absmax",
    "add",
    "decode",
    "divide",
    "encode",
    "from_int",
    "multiply",
    "narrow",
    "quantize",
    "reciprocal",
    "rescale",
    "root",
    "to_int",
]

Bits = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary float: sign, exponent and fraction, from the highest bit to the lowest.

    Small formats serve tests and proofs: a block of few bits can be tested with all operands.

    Members
    -------
    exponent_bits : 2 to 8; an exponent of ones is a number that is not finite
    fraction_bits : 1 to 23; the leading one of a normal number is not stored
    """

    exponent_bits: int = 8
    fraction_bits: int = 23

    def __post_init__(self) -> None:
        if not 2 <= self.exponent_bits <= 8:
            raise ConfigError(f"exponent_bits must be 2 to 8, not {self.exponent_bits}")
        if not 1 <= self.fraction_bits <= 23:
            raise ConfigError(f"fraction_bits must be 1 to 23, not {self.fraction_bits}")

    @property
    def bits(self) -> int:
        """Width of a number."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def precision(self) -> int:
        """Bits of the significand, the leading one included."""
        return 1 + self.fraction_bits

    @property
    def bias(self) -> int:
        """The exponent field of 1.0."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def not_finite(self) -> int:
        """The exponent field of what is not finite."""
        return (1 << self.exponent_bits) - 1

    @property
    def reciprocal_shift(self) -> int:
        """s of the long reciprocal floor(2^s / D), where D is the significand as an integer.

        RN(A · reciprocal / 2^s) = RN(A / D) for each integer A of `precision` bits, p. Proof: no
        quotient A / D is halfway between two numbers. With f fraction bits of a half H, it is at
        least 1 / (D · 2^f) away from H, because 2^f · A and 2^f · H · D are different integers.
        A quotient from 1/2 to 2 has f ≤ p + 1. The product is too small by less than A / 2^s, and
        A · D · 2^(p + 1) < 2^(3p + 1).
        """
        return 3 * self.precision + 1

    @property
    def reciprocal_bits(self) -> int:
        """Width of the long reciprocal: D ≥ 2^(p − 1), so it is at most 2^(2p + 2)."""
        return 2 * self.precision + 3


FLOAT32 = FloatFormat()


def decode(bits: npt.ArrayLike, form: FloatFormat = FLOAT32) -> F64:
    """The numbers of bit patterns in float64, exactly; subnormal ones as zeros of their sign, and
    all that are not finite as infinity."""
    pattern = np.asarray(bits, np.int64)
    sign = np.where(pattern >> (form.bits - 1) & 1, -1.0, 1.0)
    exponent = pattern >> form.fraction_bits & form.not_finite
    significand = (pattern & ((1 << form.fraction_bits) - 1)) | 1 << form.fraction_bits
    size = np.ldexp(significand.astype(np.float64), exponent - form.bias - form.fraction_bits)
    size = np.where(exponent == form.not_finite, np.inf, np.where(exponent == 0, 0.0, size))
    return sign * size


def encode(values: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """Numbers in float64, rounded to a format, as bit patterns; NaN and infinity as infinity.

    The sum, product, quotient or root of two numbers of at most 24 bits, computed in float64 and
    rounded here, is rounded correctly: float64 has 53 bits, more than 2 · 24 + 1.
    """
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    fraction, power = np.frexp(np.where(finite, np.abs(array), 0.0))
    digits = np.rint(np.ldexp(fraction, form.precision)).astype(np.int64)  # 2^(p−1) … 2^p, or 0
    carry = digits >> form.precision
    exponent = power.astype(np.int64) - 1 + form.bias + carry
    size = exponent << form.fraction_bits | (digits >> carry) & ((1 << form.fraction_bits) - 1)
    size = np.where((digits == 0) | (exponent <= 0), 0, size)
    infinite = ~finite | ((digits != 0) & (exponent >= form.not_finite))
    size = np.where(infinite, form.not_finite << form.fraction_bits, size)
    return (np.signbit(array).astype(np.int64) << (form.bits - 1) | size).astype(np.uint32)


def multiply(a: npt.ArrayLike, b: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN(a · b)."""
    x, y = decode(a, form), decode(b, form)
    fine = np.isfinite(x) & np.isfinite(y)
    size = np.where(fine, np.abs(np.where(fine, x, 0.0) * np.where(fine, y, 0.0)), np.inf)
    return encode(np.copysign(size, np.copysign(1.0, x) * np.copysign(1.0, y)), form)


def add(a: npt.ArrayLike, b: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN(a + b). A sum that is zero is −0.0 only if both operands are.

    If an operand is not finite, the result has the sign of the one with the greater pattern, of `a`
    if they are the same.
    """
    x, y = decode(a, form), decode(b, form)
    magnitude = (1 << (form.bits - 1)) - 1
    larger = (np.asarray(a, np.int64) & magnitude) >= (np.asarray(b, np.int64) & magnitude)
    fine = np.isfinite(x) & np.isfinite(y)
    infinite = np.copysign(np.inf, np.where(larger, x, y))
    return encode(np.where(fine, np.where(fine, x, 0.0) + np.where(fine, y, 0.0), infinite), form)


def divide(a: npt.ArrayLike, b: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN(a / b); not finite where b is zero or not finite."""
    x, y = decode(a, form), decode(b, form)
    sign = np.copysign(1.0, x) * np.copysign(1.0, y)
    fine = np.isfinite(x) & np.isfinite(y) & (y != 0)
    size = np.where(fine, np.abs(x) / np.where(fine, np.abs(y), 1.0), np.inf)
    return encode(np.copysign(size, sign), form)


def root(a: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN(√a); a zero stays as it is, and a negative number is not finite."""
    x = decode(a, form)
    fine = np.isfinite(x) & (x >= 0)
    size = np.where(fine, np.sqrt(np.where(fine, np.abs(x), 0.0)), np.inf)
    return encode(np.copysign(size, x), form)


def reciprocal(b: npt.ArrayLike, form: FloatFormat = FLOAT32) -> npt.NDArray[np.uint64]:
    """The long reciprocal of b's significand D: floor(2^s / D), s = `reciprocal_shift`.

    Sign and exponent of b do not count, nor whether it is normal.
    """
    pattern = np.asarray(b, np.int64)
    digits = (pattern & ((1 << form.fraction_bits) - 1)) | 1 << form.fraction_bits
    # 2^s has up to 74 bits, so the division is done in two halves.
    half = form.reciprocal_shift // 2
    high, rest = np.divmod(np.int64(1) << half, digits)
    low = np.int64(1) << (form.reciprocal_shift - half)
    return (high * low + rest * low // digits).astype(np.uint64)


def from_int(values: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN of signed integers of at most 32 bits; zero is +0.0."""
    return encode(np.asarray(values, np.float64), form)


def to_int(x: npt.ArrayLike, bits: int, form: FloatFormat = FLOAT32) -> I64:
    """Numbers rounded to signed integers of `bits` bits; what is too large becomes the nearest of
    them, and what is not finite the one of its sign."""
    top = 1 << (bits - 1)
    return np.clip(np.rint(decode(x, form)), -top, top - 1).astype(np.int64)


def quantize(x: npt.ArrayLike, s: npt.ArrayLike, form: FloatFormat = FLOAT32) -> I64:
    """Codes: RN(x · s) rounded to int8."""
    return to_int(multiply(x, s, form), 8, form)


def rescale(acc: npt.ArrayLike, d: npt.ArrayLike, form: FloatFormat = FLOAT32) -> Bits:
    """RN(acc / d) of integers that have at most `precision` bits beside the sign."""
    return divide(from_int(acc, form), d, form)


def narrow(x: npt.ArrayLike, fraction_bits: int, form: FloatFormat = FLOAT32) -> Bits:
    """Patterns rounded to fewer fraction bits, the others zero: 7 of float32 are bfloat16.

    Subnormal numbers are rounded too, as in the library, and what is not finite loses its bits.
    """
    pattern = np.asarray(x, np.int64)
    dropped = form.fraction_bits - fraction_bits
    finite = pattern >> form.fraction_bits & form.not_finite != form.not_finite
    up = ((1 << dropped) - 1 >> 1) + (pattern >> dropped & 1)
    return ((pattern + np.where(finite, up, 0)) >> dropped << dropped).astype(np.uint32)


def absmax(x: npt.ArrayLike, form: FloatFormat = FLOAT32) -> tuple[int, bool]:
    """The pattern of the greatest magnitude of a vector, and whether all its numbers are finite."""
    size = np.asarray(x, np.int64) & ((1 << (form.bits - 1)) - 1)
    return int(size.max()), bool(size.max() >> form.fraction_bits != form.not_finite)
