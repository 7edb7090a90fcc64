"""The golden model's float operations, checked against outputs of the library bit for bit."""

import importlib.util

import numpy as np

from tests.support import ROOT
from tritloom.rtl.spec import numerics

DATA = ROOT / "tests" / "data"

_spec = importlib.util.spec_from_file_location("make_hf_floats", DATA / "make_hf_floats.py")
assert _spec is not None
assert _spec.loader is not None
make_hf_floats = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_hf_floats)

Arrays = dict[str, np.ndarray]


def different(y: np.ndarray, expected: np.ndarray) -> int:
    """How many float32 differ in a bit. All NaN are one value."""
    assert y.dtype == expected.dtype == np.float32
    assert y.shape == expected.shape
    one = [np.where(np.isnan(array), np.float32(np.nan), array) for array in (y, expected)]
    return int((one[0].view(np.uint32) != one[1].view(np.uint32)).sum())


def results(kind: str, name: str, case: Arrays) -> Arrays:
    """What the golden model computes for one case, by the names of the library's outputs."""
    bfloat16 = name.startswith("bfloat16")
    match kind:
        case "round":
            return {"y": numerics.to_bfloat16(case["x"])}
        case "sum":
            squares = np.square(case["x"])
            mean = numerics.sum_in_order(squares) / np.float32(squares.shape[1])
            return {"sum": numerics.sum_in_order(case["x"]), "mean": mean}
        case "norm":
            y = numerics.rms_norm(case["x"], case["weight"], make_hf_floats.EPS, bfloat16)
            return {"y": y}
        case "relu2":
            return {"y": numerics.relu2_times(case["gate"], case["up"], bfloat16)}
        case "residual":
            return {"sum": numerics.add_residual(case["x"], case["y"], bfloat16)}
        case "rope":
            return {"y": numerics.rotate(case["x"], case["cos"], case["sin"], bfloat16)}
    codes, s = numerics.absmax_quantize(case["x"], bfloat16)

    def layer(x: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        return numerics.bitlinear(x, case["trits"], case["scale"][0], True, bias, bfloat16)

    x = case["x"]
    return {
        "codes": codes,
        "s": s,
        "y": layer(x),
        "y_one_token": layer(x[:1]),
        "y_bias": layer(x, case["bias"]),
    }


def check(kind: str, name: str, case: Arrays) -> int:
    """Compare one case of the library's outputs; the number of values that were compared."""
    count = 0
    for what, y in results(kind, name, case).items():
        if y.dtype == np.int8:
            assert (y == case[what]).all(), (kind, name, what)
        else:
            assert different(y, case[what]) == 0, (kind, name, what)
        count += y.size
    return count


KINDS = ("round", "sum", "norm", "relu2", "residual", "rope", "layer")
