"""The packed weight format of transformers: four trits in a byte."""

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["unpack_trits"]

UNUSED_CODE = 3
"""Two bits hold codes 0 to 3. Trits use 0 to 2; transformers would read 3 as the weight 2."""


def unpack_trits(packed: npt.NDArray[np.uint8], name: str = "weight") -> npt.NDArray[np.int8]:
    """Unpack the trits of a weight matrix.

    Bits `2i + 1` and `2i` of `packed[r, c]` hold `trit[r + i · rows, c] + 1`, so the first quarter
    of the output rows lies in the lowest bits.

    Parameters
    ----------
    packed : uint8 `[out_features / 4, in_features]`
    name : name of the tensor, for the error message

    Returns
    -------
    int8 `[out_features, in_features]` in {-1, 0, 1}

    Raises
    ------
    CheckpointError : a code is 3; the message gives its place in the result

    Source
    ------
    `transformers.integrations.bitnet.unpack_weights`
    """
    codes = np.concatenate([packed >> shift & 3 for shift in (0, 2, 4, 6)])
    bad = np.argwhere(codes == UNUSED_CODE)
    if len(bad):
        row, column = bad[0]
        raise CheckpointError(
            f"{name} has code 3 at [{row}, {column}], codes are 0, 1 or 2; get the file again"
        )
    return codes.astype(np.int8) - np.int8(1)
