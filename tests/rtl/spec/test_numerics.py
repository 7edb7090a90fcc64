"""The golden model against vectors that transformers computed, and against plain integers."""

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from tests.support import ROOT, floats
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import InputError

DATA = ROOT / "tests" / "data"

_spec = importlib.util.spec_from_file_location("make_hf", DATA / "make_hf_bitlinear.py")
assert _spec is not None
assert _spec.loader is not None
make_hf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_hf)

Arrays = dict[str, np.ndarray]


def check_quant(case: Arrays) -> None:
    codes, s = numerics.absmax_quantize(case["x"])
    assert codes.dtype == np.int8
    assert s.dtype == np.float32
    assert s.shape == (len(codes), 1)
    assert (codes == case["codes"]).all()
    assert (s == case["s"]).all()
    with np.errstate(over="ignore"):
        assert (codes / s == case["dequantized"]).all()


def check_weight(case: Arrays) -> None:
    trits, scale = numerics.absmean_ternarize(case["w"])
    assert trits.dtype == np.int8
    assert isinstance(scale, np.float32)
    assert (trits == np.sign(case["dequantized"])).all()
    assert np.allclose(trits * scale, case["dequantized"], rtol=3e-7, atol=0)


def check_product(case: Arrays) -> None:
    acc = numerics.matmul(case["trits"], case["codes"])
    assert acc.dtype == np.int32
    assert (acc == case["acc"]).all()


def check_layer(case: Arrays) -> None:
    scale, bias = case["scale"][0], case.get("bias")
    y = numerics.bitlinear(case["x"], case["trits"], scale, scale_divides=True, bias=bias)
    assert floats.different(y, case["y_bitlinear"]) == 0
    # AutoBitLinear sums floats, and multiplies its bias by the scale as well.
    y = numerics.bitlinear(
        case["x"], case["trits"], scale, bias=None if bias is None else bias * scale
    )
    assert np.allclose(y, case["y_autobitlinear"], rtol=1e-5, atol=1e-6 * np.abs(y).max())


def check_norm(case: Arrays) -> None:
    y = numerics.rms_norm(case["x"], case["weight"], make_hf.EPS)
    assert floats.different(y, case["y"]) == 0


CHECKS: dict[str, Callable[[Arrays], None]] = {
    "quant": check_quant,
    "weight": check_weight,
    "product": check_product,
    "layer": check_layer,
    "norm": check_norm,
}


def committed() -> Arrays:
    with np.load(DATA / "hf_bitlinear.npz", allow_pickle=False) as archive:
        return dict(archive)


COMMITTED = committed()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in CHECKS for name in make_hf.cases(COMMITTED, kind)],
)
def test_equals_transformers(kind: str, name: str) -> None:
    CHECKS[kind](make_hf.cases(COMMITTED, kind)[name])


def test_committed_inputs_are_those_of_the_script() -> None:
    given = make_hf.inputs()
    assert given.keys() < COMMITTED.keys()
    for key, array in given.items():
        assert (COMMITTED[key] == array).all(), key


FLOATS = dict(np.load(floats.DATA / "hf_floats.npz", allow_pickle=False))


@pytest.mark.parametrize("kind", floats.KINDS)
def test_floats_equal_the_library(kind: str) -> None:
    """Bit for bit, the sign of zero too; in float32 and in bfloat16."""
    for name, case in floats.make_hf_floats.cases(FLOATS, kind).items():
        assert floats.check(kind, name, case)


def test_committed_floats_are_those_of_the_script() -> None:
    given = floats.make_hf_floats.inputs()
    assert given.keys() < FLOATS.keys()
    for key, array in given.items():
        assert (FLOATS[key].view(np.uint8) == array.view(np.uint8)).all(), key


def test_bfloat16_codes_reach_the_lowest() -> None:
    """The committed vectors have −128, which no float32 quantizer makes, and ties."""
    lowest = {name: case["codes"].min() for name, case in LAYERS.items()}
    assert min(lowest[name] for name in lowest if name.startswith("float32")) == -127
    assert min(lowest.values()) == -128
    ties = LAYERS["float32_wide"]
    assert (np.abs(ties["x"] * ties["s"] % 1) == 0.5).any()


LAYERS = floats.make_hf_floats.cases(FLOATS, "layer")


@pytest.mark.parametrize("name", LAYERS)
def test_multiplying_scales_round_twice(name: str) -> None:
    """No library has this order, so it is spelled out: RN(RN(acc / s) · scale), then the bias."""
    case, bfloat16 = LAYERS[name], name.startswith("bfloat16")

    def rn(exact: np.ndarray) -> np.ndarray:
        return numerics.to_bfloat16(exact.astype(np.float32)) if bfloat16 else exact.astype("f4")

    s, scale = case["s"].astype(np.float64), np.float64(case["scale"][0])
    acc = numerics.matmul(case["trits"], case["codes"])
    # A quotient in float64 is that of float32 if it is rounded again: it is never near a tie.
    acc_floats = rn(acc.astype(np.float64)).astype(np.float64)
    scaled = rn(rn(acc_floats / s).astype(np.float64) * scale)
    y = numerics.rescale(acc, case["s"], case["scale"][0], bfloat16=bfloat16)
    assert floats.different(y, scaled) == 0
    y = numerics.rescale(acc, case["s"], case["scale"][0], False, case["bias"], bfloat16)
    assert floats.different(y, rn(scaled.astype(np.float64) + case["bias"])) == 0


def test_sign_of_zero() -> None:
    """A product of two matrices with one feature keeps the sign of its only term."""
    trits, codes = np.array([[0], [-1]], np.int8), np.array([[-3], [0]], np.int8)
    acc = numerics.matmul(trits, codes)
    y = numerics.sums_as_floats(acc, trits, codes)
    assert (y == acc).all()
    assert (np.signbit(y) == [[True, False], [False, True]]).all()
    for zeros in (
        numerics.sums_as_floats(acc, trits, codes, bfloat16=True),
        numerics.sums_as_floats(acc[:, :1], trits[:1], codes),
        numerics.sums_as_floats(acc[:1], trits, codes[:1]),
        numerics.sums_as_floats(acc, trits.repeat(2, 1), codes.repeat(2, 1)),
    ):
        assert not np.signbit(zeros[zeros == 0]).any()


def test_rotation_keeps_the_sign_of_zero() -> None:
    """The turned half is negated, so a zero in it becomes -0.0: the sum of two such zeros."""
    x = np.array([-0.0, 0.0], np.float32)
    ones = np.ones(2, np.float32)
    assert np.signbit(numerics.rotate(x, ones, ones)).tolist() == [True, False]


def test_bfloat16_inputs_that_round_to_infinity_are_refused() -> None:
    x = np.array([[1, np.finfo(np.float32).max]], np.float32)
    numerics.absmax_quantize(x)
    with pytest.raises(InputError, match="not inf at token 0, position 1"):
        numerics.absmax_quantize(x, bfloat16=True)


def test_bfloat16_rounds_its_inputs() -> None:
    """Numbers between two bfloat16 give what their bfloat16 give."""
    rng = np.random.default_rng(3)
    x, y, z = (rng.standard_normal((5, 8)).astype(np.float32) for _ in range(3))
    rough = [numerics.to_bfloat16(each) for each in (x, y, z)]
    for fine, coarse in (
        (numerics.add_residual(x, y, True), numerics.add_residual(*rough[:2], True)),
        (numerics.relu2_times(x, y, True), numerics.relu2_times(*rough[:2], True)),
        (numerics.rotate(x, y, z, True), numerics.rotate(*rough, True)),
        (
            numerics.rms_norm(x, y[0], 1e-5, True),
            numerics.rms_norm(rough[0], rough[1][0], 1e-5, True),
        ),
        (numerics.absmax_quantize(x, True)[1], numerics.absmax_quantize(rough[0], True)[1]),
    ):
        assert floats.different(fine, coarse) == 0
        assert floats.different(fine, numerics.to_bfloat16(fine)) == 0


def test_grid_mean_is_exact() -> None:
    weights = COMMITTED["weight.grid.w"]
    _, scale = numerics.absmean_ternarize(weights)
    steps = np.abs(weights * 1024).astype(np.int64).sum()
    assert scale == np.float32(steps / 1024 / weights.size)


def test_scale_is_two_roundings() -> None:
    """127 · (1 / absmax), not 127 / absmax: the vectors would not show a lucky agreement."""
    x = COMMITTED["quant.normal.x"]
    _, s = numerics.absmax_quantize(x)
    assert (s != np.float32(127) / np.abs(x).max(axis=1, keepdims=True)).any()


def test_conventions_differ_by_the_squared_scale() -> None:
    case = make_hf.cases(COMMITTED, "layer")["odd"]
    scale = case["scale"][0]
    multiplied = numerics.bitlinear(case["x"], case["trits"], scale)
    assert np.allclose(multiplied, case["y_bitlinear"] * scale**2, rtol=1e-6)
    assert not np.allclose(multiplied, case["y_bitlinear"], rtol=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_matmul_equals_integers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, outs, ins = rng.integers(1, 70, 3)
    trits = rng.integers(-1, 2, (outs, ins)).astype(np.int8)
    codes = rng.integers(-128, 128, (tokens, ins)).astype(np.int8)
    assert (
        numerics.matmul(trits, codes) == codes.astype(np.int64) @ trits.T.astype(np.int64)
    ).all()


@pytest.mark.parametrize("features", [131_071, 131_072, 131_073, 300_001])
def test_matmul_is_exact_where_one_float32_sum_ends(features: int) -> None:
    """All -128 × -1 reaches 2^24 at 131,072 features; one more makes 2^24 + 1, not a float32."""
    codes = np.full((2, features), -128, np.int8)
    codes[:, -1] = -1
    trits = np.full((2, features), -1, np.int8)
    trits[1] = 1
    expected = 128 * (features - 1) + 1
    assert (numerics.matmul(trits, codes) == [[expected, -expected]] * 2).all()


def test_matmul_is_exact_where_a_library_reports_invalid_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def report(codes: np.ndarray, trits: np.ndarray) -> np.ndarray:
        raise FloatingPointError("invalid value encountered in matmul")

    rng = np.random.default_rng(24)
    trits = rng.integers(-1, 2, (3, 300)).astype(np.int8)
    codes = rng.integers(-128, 128, (2, 300)).astype(np.int8)
    codes[0], trits[0] = -128, -1
    right = numerics.matmul(trits, codes)
    monkeypatch.setattr(numerics, "_float_product", report)
    assert (numerics.matmul(trits, codes) == right).all()
    assert (right == codes.astype(np.int64) @ trits.T.astype(np.int64)).all()


def test_matmul_reaches_the_end_of_int32() -> None:
    longest = (2**31 - 1) // 128
    trits = np.broadcast_to(np.int8(-1), (1, longest))
    codes = np.broadcast_to(np.int8(-128), (1, longest))
    assert numerics.matmul(trits, codes) == longest * 128
    longer = np.broadcast_to(np.int8(0), (1, longest + 1))
    with pytest.raises(InputError, match="in_features must be at most 16777215, not 16777216"):
        numerics.matmul(longer, longer)


def test_rescale_with_a_scale_a_row() -> None:
    rng = np.random.default_rng(5)
    acc = rng.integers(-9000, 9000, (3, 4)).astype(np.int32)
    s = rng.uniform(1, 50, (3, 1)).astype(np.float32)
    scale = rng.uniform(0.1, 9, 4).astype(np.float32)
    for divides in (False, True):
        y = numerics.rescale(acc, s, scale, divides)
        for row in range(4):
            alone = numerics.rescale(acc[:, row : row + 1], s, scale[row], divides)
            assert (y[:, row : row + 1] == alone).all()


def test_rescale_rounds_each_operation() -> None:
    one = np.float32(1)
    s, scale, acc = np.array([[3]], np.float32), np.float32(7), np.array([[10]], np.int32)
    assert numerics.rescale(acc, s, scale)[0, 0] == np.float32(10) / np.float32(3) * np.float32(7)
    assert numerics.rescale(acc, s, scale, True)[0, 0] == np.float32(10) / np.float32(21)
    assert numerics.rescale(acc, s, scale, bias=np.array([one]))[0, 0] == (
        np.float32(10) / np.float32(3) * np.float32(7) + one
    )


def test_rescale_overflows_to_inf_as_the_library() -> None:
    acc = np.array([[1, -1]], np.int32)
    y = numerics.rescale(acc, np.array([[1e-38]], np.float32), np.float32(1e30))
    assert (y == [[np.inf, -np.inf]]).all()


def test_rescale_refuses_a_scale_of_another_shape() -> None:
    acc = np.zeros((2, 3), np.int32)
    message = r"scale must be a scalar or have shape \(3,\), not \(2,\)"
    with pytest.raises(InputError, match=message):
        numerics.rescale(acc, np.ones((2, 1), np.float32), np.ones(2, np.float32))


def test_rms_norm_of_huge_values_does_not_warn() -> None:
    x = np.array([[1e30, -1e30]], np.float32)
    assert (numerics.rms_norm(x, np.ones(2, np.float32), 1e-5) == 0).all()


def test_rms_norm_is_over_the_last_dimension() -> None:
    x = COMMITTED["norm.normal.x"]
    weight = COMMITTED["norm.normal.weight"]
    y = numerics.rms_norm(x, weight, 1e-5)
    assert (numerics.rms_norm(x.reshape(2, 8, -1), weight, 1e-5).reshape(y.shape) == y).all()
    assert (numerics.rms_norm(x[3], weight, 1e-5) == y[3]).all()


def test_float16_and_float64_are_taken_as_float32() -> None:
    x = np.array([[0.1, -3.3, 2.0]])
    for dtype in (np.float16, np.float64):
        codes, s = numerics.absmax_quantize(x.astype(dtype))
        expected = numerics.absmax_quantize(x.astype(dtype).astype(np.float32))
        assert (codes == expected[0]).all()
        assert s == expected[1]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), "not nan at token 1, position 1"),
        (np.array([[np.inf, 2.0]]), "not inf at token 0, position 0"),
        (np.array([[0.0, 0.0, -np.inf]]), "not -inf at token 0, position 2"),
        (np.array([[1e39]]), "not inf at token 0, position 0"),
        (np.array([[1, 2]]), r"x must be float32, not int64; use .astype\(np.float32\)"),
        (np.array([1.0, 2.0]), r"x must have 2 dimensions, not shape \(2,\)"),
        (np.zeros((0, 4)), r"x must not be empty, its shape is \(0, 4\)"),
        (np.zeros((4, 0)), r"x must not be empty, its shape is \(4, 0\)"),
    ],
)
def test_quantize_refuses(x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        numerics.absmax_quantize(x)


def test_ternarize_refuses_nan() -> None:
    with pytest.raises(InputError, match="weights must be finite float32, not nan at row 0, pos"):
        numerics.absmean_ternarize(np.array([[0.5, np.nan]]))


@pytest.mark.parametrize(
    ("trits", "codes", "message"),
    [
        (np.ones((2, 3), np.int8), np.ones((1, 3), np.int16), "codes must be int8, not int16"),
        (np.ones((2, 3), np.int32), np.ones((1, 3), np.int8), "trits must be int8, not int32"),
        (np.ones((2, 3), np.int8), np.ones((1, 4), np.int8), "codes must have 3 features .* not 4"),
        (np.int8([[1, 2, -1]]), np.ones((1, 3), np.int8), "trits must be -1, 0 or 1, not 2"),
        (np.int8([[1, -1, -2]]), np.ones((1, 3), np.int8), "trits must be -1, 0 or 1, not -2"),
        (np.ones((2, 3), np.int8), np.ones(3, np.int8), r"codes must have 2 dim.* \(3,\)"),
        (np.ones((2, 0), np.int8), np.ones((1, 0), np.int8), "trits must not be empty"),
    ],
)
def test_matmul_refuses(trits: np.ndarray, codes: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        numerics.matmul(trits, codes)


def test_masked_arrays_are_refused() -> None:
    """Their masks would be lost, and what is masked would count."""
    x = np.ma.masked_equal(np.ones((1, 2), np.float32), 1)
    with pytest.raises(InputError, match=r"^x must not be a masked array"):
        numerics.absmax_quantize(x)
    with pytest.raises(InputError, match=r"^weights must not be a masked array"):
        numerics.absmean_ternarize(x)
    codes = np.ones((1, 2), np.int8)
    for pair, name in (
        ((np.ma.masked_equal(codes, 1), codes), "trits"),
        ((codes, np.ma.masked_equal(codes, 1)), "codes"),
    ):
        with pytest.raises(InputError, match=f"^{name} must not be a masked array"):
            numerics.matmul(*pair)
    acc, s = np.ones((1, 2), np.int32), np.ones((1, 1), np.float32)
    with pytest.raises(InputError, match=r"^scale must not be a masked array"):
        numerics.rescale(acc, s, np.ma.masked_equal(np.ones(2), 1))


@pytest.mark.parametrize("value", ["no", 1, None, np.array([True, False])])
def test_scale_divides_is_yes_or_no(value: object) -> None:
    acc, s = np.ones((1, 2), np.int32), np.ones((1, 1), np.float32)
    with pytest.raises(InputError, match=r"^scale_divides must be True or False, not "):
        numerics.rescale(acc, s, 2.0, value)  # type: ignore[arg-type]
