"""TernaryLayer: validation, immutability, stacking."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tritloom.host.layer import TernaryLayer, stack
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import InputError, TritloomError

TRITS = np.array([[1, 0, -1], [0, 1, 1]], np.int8)


def test_members() -> None:
    layer = TernaryLayer.from_trits(TRITS, 0.25, bias=[1, 2])
    assert (layer.out_features, layer.in_features) == (2, 3)
    assert (layer.trits == TRITS).all()
    assert layer.scale.dtype == np.float32
    assert layer.scale.shape == ()
    assert layer.scale == 0.25
    assert layer.scale_divides is False
    assert layer.bias is not None
    assert layer.bias.dtype == np.float32
    assert layer.bias.tolist() == [1, 2]


def test_arrays_are_copies_and_read_only() -> None:
    trits, scale = TRITS.copy(), np.ones(2, np.float32)
    layer = TernaryLayer.from_trits(trits, scale)
    trits[0, 0], scale[0] = -1, 9
    assert layer.trits[0, 0] == 1
    assert layer.scale[0] == 1
    for array in (layer.trits, layer.scale):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.scale_divides = True  # type: ignore[misc]


def test_transposed_trits_become_contiguous() -> None:
    layer = TernaryLayer.from_trits(TRITS.T, 1)
    assert layer.trits.flags.c_contiguous
    assert (layer.trits == TRITS.T).all()


@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), [2.0], np.array(2, np.float16)])
def test_one_scale_is_a_scalar(scale: Any) -> None:
    layer = TernaryLayer.from_trits(TRITS, scale)
    assert layer.scale.shape == ()
    assert layer.scale == 2


def test_zero_scale_may_multiply() -> None:
    assert TernaryLayer.from_trits(TRITS, 0.0).scale == 0


@pytest.mark.parametrize(
    ("trits", "scale", "options", "message"),
    [
        (TRITS.astype(np.int64), 1, {}, "trits must be int8, not int64; use .astype(np.int8)"),
        (TRITS.astype(np.float32), 1, {}, "trits must be int8, not float32; use .astype(np.int8)"),
        (TRITS == 1, 1, {}, "trits must be int8, not bool; use .astype(np.int8)"),
        (TRITS.tolist(), 1, {}, "trits must be int8, not int64; use .astype(np.int8)"),
        (
            TRITS[0],
            1,
            {},
            "trits must have shape [out_features, in_features], not (3,); reshape it",
        ),
        (TRITS[:0], 1, {}, "trits must not be empty, the shape is (0, 3)"),
        (TRITS[:, :0], 1, {}, "trits must not be empty, the shape is (2, 0)"),
        (
            TRITS * np.array([[1], [2]], np.int8),
            1,
            {},
            "trits must be -1, 0 or 1, not 2 at [1, 1]; ternarize the weights first",
        ),
        (
            np.array([[0, 1, -2]], np.int8),
            1,
            {},
            "trits must be -1, 0 or 1, not -2 at [0, 2]; ternarize the weights first",
        ),
        (
            TRITS * np.int8(-128),
            1,
            {},
            "trits must be -1, 0 or 1, not -128 at [0, 0]; ternarize the weights first",
        ),
        (
            TRITS,
            [1.0, np.nan],
            {},
            "scale must be finite float32, not nan in row 1; check its source",
        ),
        (TRITS, np.inf, {}, "scale must be finite float32, not inf in row 0; check its source"),
        (TRITS, -1e39, {}, "scale must be finite float32, not -inf in row 0; check its source"),
        (
            TRITS,
            [1.0, 0.0],
            {"scale_divides": True},
            "scale must not be 0 where it divides, row 1; check its meaning",
        ),
        (
            TRITS,
            0.0,
            {"scale_divides": True},
            "scale must not be 0 where it divides, row 0; check its meaning",
        ),
        (TRITS, [1, 2, 3], {}, "scale must have shape () or (2,), not (3,); one value a row"),
        (TRITS, [[1], [2]], {}, "scale must have shape () or (2,), not (2, 1); one value a row"),
        (TRITS, "1", {}, "scale must be float32, not <U1; use .astype(np.float32)"),
        (TRITS, 1j, {}, "scale must be float32, not complex128; use .astype(np.float32)"),
        (TRITS, 1, {"bias": 1.0}, "bias must have shape (2,), not (); one value a row"),
        (TRITS, 1, {"bias": [1.0]}, "bias must have shape (2,), not (1,); one value a row"),
        (
            TRITS,
            1,
            {"bias": [0, -np.inf]},
            "bias must be finite float32, not -inf in row 1; check its source",
        ),
    ],
)
def test_refuses(trits: Any, scale: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        TernaryLayer.from_trits(trits, scale, **options)
    assert str(caught.value) == message
    assert isinstance(caught.value, TritloomError)
    assert isinstance(caught.value, ValueError)


def layer_of(
    rows: int, seed: int, *, divides: bool = False, bias: bool = False, per_row: bool = False
) -> TernaryLayer:
    rng = np.random.default_rng(seed)
    return TernaryLayer.from_trits(
        rng.integers(-1, 2, (rows, 50)).astype(np.int8),
        rng.uniform(0.1, 9, rows if per_row else None),
        scale_divides=divides,
        bias=rng.standard_normal(rows) if bias else None,
    )


def outputs(layer: TernaryLayer, x: np.ndarray) -> np.ndarray:
    return numerics.bitlinear(x, layer.trits, layer.scale, layer.scale_divides, layer.bias)


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize("biases", [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
def test_stack_is_the_layers_side_by_side(divides: bool, biases: tuple[int, ...]) -> None:
    parts = [
        layer_of(rows, rows, divides=divides, bias=bool(bias), per_row=rows == 7)
        for rows, bias in zip((4, 7, 1), biases, strict=True)
    ]
    fused = stack(parts)
    assert fused.trits.shape == (12, 50)
    assert fused.scale.shape == (12,)
    assert fused.scale_divides is divides
    assert (fused.bias is None) == (not any(biases))
    x = np.random.default_rng(3).standard_normal((6, 50)).astype(np.float32)
    x[0] = 0
    expected = np.concatenate([outputs(part, x) for part in parts], axis=1)
    assert outputs(fused, x).tobytes() == expected.tobytes()


def test_stack_of_one() -> None:
    part = layer_of(3, 1)
    assert (stack([part]).trits == part.trits).all()


def test_stack_keeps_minus_zero() -> None:
    """A layer without a bias, beside one with a bias, keeps the sign of its zeros."""
    silent = TernaryLayer.from_trits(np.zeros((1, 2), np.int8), -1.0)
    biased = TernaryLayer.from_trits(np.zeros((1, 2), np.int8), 1.0, bias=[0.5])
    y = outputs(stack([silent, biased]), np.ones((1, 2), np.float32))
    assert np.signbit(y[0, 0])
    assert y[0, 1] == 0.5


def test_stack_refuses() -> None:
    part = layer_of(2, 1)
    with pytest.raises(InputError, match="stack needs at least one layer, not an empty list"):
        stack([])
    with pytest.raises(InputError, match=r"same in_features, not 50 and 3 \(layer 1\)"):
        stack([part, TernaryLayer.from_trits(TRITS, 1)])
    with pytest.raises(InputError, match="all multiply or all divide by the scale, layer 2 diff"):
        stack([part, part, layer_of(2, 1, divides=True)])


@pytest.mark.parametrize("value", ["no", "", 0, 1, None, [False], np.array([True, False]), 0.0])
def test_scale_divides_is_yes_or_no(value: Any) -> None:
    with pytest.raises(InputError, match=r"^scale_divides must be True or False, not "):
        TernaryLayer.from_trits(TRITS, 2.0, scale_divides=value)


@pytest.mark.parametrize("value", [np.True_, np.array(True), True])
def test_numpy_has_yes_and_no_too(value: Any) -> None:
    assert TernaryLayer.from_trits(TRITS, 2.0, scale_divides=value).scale_divides is True


def test_masked_arrays_are_refused() -> None:
    """Their masks would be lost, and what is masked would count."""
    trits = np.ma.masked_equal(TRITS, 1)
    ones = np.ma.masked_equal(np.ones(2), 1)
    for arguments, name in (
        ((trits, 1.0), "trits"),
        ((TRITS, ones), "scale"),
        ((TRITS, 1.0, ones), "bias"),
    ):
        weights, scale, *bias = arguments
        options = {"bias": bias[0]} if bias else {}
        with pytest.raises(InputError, match=f"^{name} must not be a masked array, its mask would"):
            TernaryLayer.from_trits(weights, scale, **options)


@pytest.mark.parametrize(
    ("trits", "scale", "message"),
    [
        (None, 1.0, "trits must be an array of numbers, not NoneType"),
        ([[1, 0], [1]], 1.0, "trits must be an array of numbers: setting an array element"),
        (TRITS, [1.0, [2.0]], "scale must be an array of numbers: setting an array element"),
        (TRITS, object(), "scale must be an array of numbers, not object"),
    ],
)
def test_what_is_no_array(trits: Any, scale: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        TernaryLayer.from_trits(trits, scale)


def test_stack_of_something_else() -> None:
    layer = TernaryLayer.from_trits(TRITS, 1)
    with pytest.raises(InputError, match=r"^stack takes TernaryLayers, not ndarray \(layer 1\)$"):
        stack([layer, TRITS])  # type: ignore[list-item]
