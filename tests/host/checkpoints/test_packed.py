"""The packed format against what transformers packs and unpacks."""

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.host.checkpoints.packed import unpack_trits


@pytest.mark.parametrize("case", ["all", "tall"])
def test_unpack_equals_transformers(case: str) -> None:
    with np.load(ROOT / "tests" / "data" / "hf_bitlinear.npz") as vectors:
        trits = unpack_trits(vectors[f"pack.{case}.packed"])
        assert trits.dtype == np.int8
        assert (trits == vectors[f"pack.{case}.trits"]).all()
        assert (trits == vectors[f"pack.{case}.unpacked"]).all()
