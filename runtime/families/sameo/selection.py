"""Chooses among the masks that the decoder gives for each prompt."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

Select = Literal["best", "first", "single", "all"]


def check_select(select: str) -> None:
    """Raises `InputError` for an unknown choice."""
    if select not in get_args(Select):
        raise InputError(f"select {select!r} is unknown; expected {', '.join(get_args(Select))}.", field="select")


def choose(iou: NDArray[np.float32], select: Select) -> NDArray[np.int64]:
    """Returns the numbers of the chosen masks, int64 [N], or [N, 4] for `all`.

    Args:
        iou: as the network expects it, float32 [N, 4].
        select: `best` is the one of masks 1 to 3 with the highest expected IoU, as SAMEO's first author takes; `first`
            is mask 1; `single` is mask 0, of the token for a single answer.
    """
    count = len(iou)
    if select == "all":
        return np.tile(np.arange(iou.shape[1], dtype=np.int64), (count, 1))
    if select == "best":
        best: NDArray[np.int64] = 1 + np.argmax(iou[:, 1:], axis=1).astype(np.int64)
        return best
    return np.full(count, 1 if select == "first" else 0, np.int64)
