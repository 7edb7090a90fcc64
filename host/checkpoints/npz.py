"""Reads NumPy archives of ternary layers."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["load_npz"]


def load_npz(
    path: str | Path,
) -> tuple[dict[str, TernaryLayer], dict[str, npt.NDArray[Any]]]:
    """Read the layers of an archive.

    A layer has the arrays `NAME.trits` (int8) and `NAME.scale` (float32); `NAME.bias` and
    `NAME.scale_divides` (one boolean, false if absent) are optional.

    Returns
    -------
    The layers by name, in the archive's order, and every other array.

    Raises
    ------
    CheckpointError : the archive is missing or broken, or holds no layer or a wrong one
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no model file {file}; give an .npz with NAME.trits and NAME.scale")
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise nine kinds for a broken file
        raise CheckpointError(f"{file} is not a whole .npz archive; copy it again") from error
    names = [key.removesuffix(".trits") for key in arrays if key.endswith(".trits")]
    if not names:
        raise CheckpointError(f"{file} holds no NAME.trits; save int8 trits and a float32 scale")
    layers = {}
    for name in names:
        if f"{name}.scale" not in arrays:
            raise CheckpointError(f"{name}.trits has no {name}.scale; save both")
        divides = arrays.pop(f"{name}.scale_divides", np.array(False))
        if divides.shape != () or divides.dtype != np.bool_:
            raise CheckpointError(
                f"{name}.scale_divides must be one bool, not {divides.dtype} {divides.shape}"
            )
        try:
            layers[name] = TernaryLayer.from_trits(
                arrays.pop(f"{name}.trits"),
                arrays.pop(f"{name}.scale"),
                scale_divides=bool(divides),
                bias=arrays.pop(f"{name}.bias", None),
            )
        except InputError as error:
            raise CheckpointError(f"{name}: {error}") from error
    return layers, arrays
