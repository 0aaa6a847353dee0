"""What the values of a mask mean."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


def binarise(values: NDArray[Any], xp: Any = np) -> NDArray[np.bool_]:
    """The object in raw mask values: values above 128 or, where the clip's maximum is 1, the value 1.

    Args:
        values: bool or integers of any shape, a whole clip at once, numpy's or `xp`'s.

    Returns:
        bool, the same shape.
    """
    if values.dtype == np.bool_:
        return cast("NDArray[np.bool_]", values)
    if xp is not np:  # without a branch, which would wait for the device
        values = values.astype(np.int16) if values.dtype == np.int8 else values  # int8 cannot be compared with 128
        return cast("NDArray[np.bool_]", (values > 128) | ((values == 1) & (values.max() == 1)))
    binary = values.size > 0 and values.max() == 1
    return cast("NDArray[np.bool_]", values == 1 if binary else values > 128)
