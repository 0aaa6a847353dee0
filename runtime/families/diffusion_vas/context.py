"""Context layouts: which CLIP embedding each row of the U-Net attends to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .config import ContextLayout


def context_rows(
    embeddings: NDArray[np.float32], layout: ContextLayout, guided: bool, xp: Any = np
) -> NDArray[np.float32]:
    """Returns the context of every CFG row: [B, T, D], B = 2 if guided (unconditional first), else 1.

    The authors concatenate each frame's embedding with its zero negative before they concatenate the frames. So the 2T
    rows of the `reference` layout are 0, e(0), 0, e(1), ..., while the U-Net's rows are all unconditional frames, then
    all conditional ones. `aligned` is what was meant: zeros for the unconditional row, e(f) for frame f of the
    conditional one. `sequence` has the same rows, but every frame attends to all T of them.

    Args:
        embeddings: [T, D], one per frame.
        guided: whether there is an unconditional row; without one, every layout is e(0), ..., e(T - 1).
    """
    if not guided:
        return embeddings[None]
    axis = 1 if layout == "reference" else 0
    rows: NDArray[np.float32] = xp.stack([xp.zeros_like(embeddings), embeddings], axis=axis)
    return rows.reshape(2, *embeddings.shape)


def check_layout(wanted: ContextLayout | None, exported: ContextLayout) -> ContextLayout:
    """Returns the layout to use: the bundle's own, or another for which its graphs work.

    Raises:
        InputError: the layout is unknown, or the graphs expect the other kind of context.
    """
    if wanted is None or wanted == exported:
        return exported
    if wanted not in ("reference", "aligned", "sequence"):
        raise InputError(f"context layout {wanted!r} is unknown; expected reference, aligned or sequence.")
    if "sequence" in (wanted, exported):
        raise InputError(
            f"this bundle was exported for the context layout {exported} and cannot run {wanted}; "
            f"export it again with `amodal export --context {wanted}`.",
            field="context",
        )
    return wanted
