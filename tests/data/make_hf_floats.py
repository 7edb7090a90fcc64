"""Writes hf_floats.npz: what torch and transformers compute for the float operations of a model.

    pip install torch transformers accelerate numpy
    python tests/data/make_hf_floats.py

The committed file was made with transformers 5.23.0 and torch 2.13.0 on a CPU. Inputs are made by
NumPy from a fixed seed. Outputs are those of transformers.integrations.bitnet and
transformers.models.bitnet without torch.compile, in float32 and in bfloat16. All arrays are named
`kind.case.what`. Bfloat16 values are stored as float32 whose low 16 bits are zero.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
EPS = 1e-5
DTYPES = ("float32", "bfloat16")
LOWEST = np.float32(172 / 128)
"""As the largest magnitude of a bfloat16 token, it is quantized to 128, and negated to −128."""
SIZES = (1, 5, 8, 31, 40, 256, 515, 640)
"""Features of sums and norms: below a vector, whole rows or not, more than one block of rows."""


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Float32 of any exponent that a square does not overflow, mixed with hard cases: subnormal
    numbers, zeros of both signs, ties of bfloat16, and numbers of few bits."""
    count = int(np.prod(shape))
    values = (rng.standard_normal(count) * np.exp2(rng.uniform(-20, 20, count))).astype(np.float32)
    bits = values.view(np.uint32)
    kind = rng.integers(0, 10, count)
    bits[kind == 0] &= 0xFFFF8000  # even or odd, then a half
    bits[kind == 1] &= 0xFFF00000
    values[kind == 2] *= np.float32(2.0**-60)
    bits[kind == 3] &= 0x807FFFFF
    bits[kind == 4] &= 0x80000000
    return values.reshape(shape)


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bfloat16 towards zero of each value."""
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def inputs(seed: int = 2026, count: int = 300) -> Arrays:
    """Test inputs; `count` numbers or so for each case."""
    rng = np.random.default_rng(seed)
    f32 = np.float32
    arrays: Arrays = {}
    arrays["round.any.x"] = rng.integers(0, 2**32, 2 * count, np.uint64).astype(np.uint32).view(f32)
    arrays["round.mixed.x"] = floats(rng, count)
    for size in SIZES:
        rows = max(3, count // size)
        spread = np.exp2(rng.uniform(-30, 30, (rows, 1)))
        arrays[f"sum.{size}.x"] = (rng.standard_normal((rows, size)) * spread).astype(f32)
    for dtype in DTYPES:

        def fit(values: np.ndarray, dtype: str = dtype) -> np.ndarray:
            return as_bfloat16(values) if dtype == "bfloat16" else values

        for size in SIZES:
            case = f"norm.{dtype}_{size}"
            rows = max(3, count // size)
            spread = np.exp2(rng.uniform(-24, 24, (rows, 1)))
            arrays[f"{case}.x"] = fit((rng.standard_normal((rows, size)) * spread).astype(f32))
            arrays[f"{case}.x"][0] = 0
            arrays[f"{case}.weight"] = fit(rng.standard_normal(size).astype(f32))
        arrays[f"relu2.{dtype}.gate"] = fit(floats(rng, count))
        arrays[f"relu2.{dtype}.up"] = fit(floats(rng, count))
        terms = floats(rng, count), floats(rng, count)
        terms[1][: count // 4] = -terms[0][: count // 4] * f32(1 + 2.0**-20)
        terms[1][: count // 8] = -terms[0][: count // 8]
        arrays[f"residual.{dtype}.x"], arrays[f"residual.{dtype}.y"] = map(fit, terms)
        heads = max(2, count // 32)
        angles = rng.uniform(0, 300, (heads, 1, 4)).astype(f32)
        angles = np.concatenate([angles, angles], axis=-1)
        arrays[f"rope.{dtype}.x"] = fit(floats(rng, heads, 4, 8))
        arrays[f"rope.{dtype}.cos"] = fit(np.cos(angles))
        arrays[f"rope.{dtype}.sin"] = fit(np.sin(angles))
        tokens = max(6, count // 64)
        for name, (outs, ins) in {"one": (4, 1), "narrow": (8, 7), "wide": (64, 300)}.items():
            case = f"layer.{dtype}_{name}"
            spread = np.exp2(rng.uniform(-40, 40, (tokens, 1)))
            x = (rng.standard_normal((tokens, ins)) * spread).astype(f32)
            x[: tokens // 3] = rng.integers(-254, 255, (tokens // 3, ins)) / 2
            x[: tokens // 3, 0] = 127  # the scale is one, so codes tie
            x[1] = 0
            x[2, 0] = -LOWEST
            x[2, 1:] = np.clip(x[2, 1:], -1, 1)
            arrays[f"{case}.x"] = fit(x)
            arrays[f"{case}.trits"] = rng.integers(-1, 2, (outs, ins)).astype(np.int8)
            arrays[f"{case}.scale"] = fit(rng.uniform(0.01, 60, 1).astype(f32))
            arrays[f"{case}.bias"] = fit(rng.standard_normal(outs).astype(f32))
    return arrays


def cases(arrays: Arrays, kind: str) -> dict[str, Arrays]:
    """The arrays of one kind: case → what → array."""
    results: dict[str, Arrays] = {}
    for key, array in arrays.items():
        if key.startswith(kind + "."):
            _, case, what = key.split(".", 2)
            results.setdefault(case, {})[what] = array
    return results


def outputs(given: Arrays) -> Arrays:
    """What torch and transformers compute from `given`."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch
    from transformers.activations import ACT2FN
    from transformers.integrations import bitnet
    from transformers.models.bitnet.modeling_bitnet import BitNetRMSNorm, apply_rotary_pos_emb

    def tensor(array: np.ndarray, dtype: Any = None) -> Any:
        return torch.from_numpy(array.copy()).to(dtype)

    arrays: Arrays = {}

    def store(key: str, value: Any) -> None:
        arrays[key] = (value if value.dtype == torch.int8 else value.float()).numpy()

    def dtype_of(case: str) -> Any:
        return getattr(torch, case.partition("_")[0])

    with torch.no_grad():
        for name, case in cases(given, "round").items():
            store(f"round.{name}.y", tensor(case["x"]).to(torch.bfloat16))
        for name, case in cases(given, "sum").items():
            store(f"sum.{name}.sum", tensor(case["x"]).sum(-1))
            store(f"sum.{name}.mean", tensor(case["x"]).pow(2).mean(-1))
        for name, case in cases(given, "norm").items():
            norm = BitNetRMSNorm(case["x"].shape[1], eps=EPS).to(dtype_of(name))
            norm.weight.copy_(tensor(case["weight"]))
            store(f"norm.{name}.y", norm(tensor(case["x"], dtype_of(name))))
        for name, case in cases(given, "relu2").items():
            gate, up = (tensor(case[key], dtype_of(name)) for key in ("gate", "up"))
            store(f"relu2.{name}.y", ACT2FN["relu2"](gate) * up)
        for name, case in cases(given, "residual").items():
            x, y = (tensor(case[key], dtype_of(name)) for key in ("x", "y"))
            store(f"residual.{name}.sum", x + y)
        for name, case in cases(given, "rope").items():
            x, cos, sin = (tensor(case[key], dtype_of(name)) for key in ("x", "cos", "sin"))
            turned, _ = apply_rotary_pos_emb(x, x, cos[:, 0], sin[:, 0])
            store(f"rope.{name}.y", turned)
        for name, case in cases(given, "layer").items():
            outs, ins = case["trits"].shape
            layer = bitnet.BitLinear(ins, outs, bias=True, dtype=dtype_of(name))
            layer.weight = bitnet.pack_weights(tensor(case["trits"], torch.float32))
            layer.weight_scale = tensor(case["scale"], dtype_of(name))
            x, layer.bias = tensor(case["x"], dtype_of(name)), None
            codes, s = layer.activation_quant(x)
            store(f"layer.{name}.codes", codes)
            store(f"layer.{name}.s", s)
            store(f"layer.{name}.y", layer(x))
            store(f"layer.{name}.y_one_token", layer(x[:1]))
            layer.bias = tensor(case["bias"], dtype_of(name))
            store(f"layer.{name}.y_bias", layer(x))
    return arrays


def main() -> None:
    given = inputs()
    np.savez_compressed(Path(__file__).with_name("hf_floats.npz"), **given, **outputs(given))


if __name__ == "__main__":
    main()
