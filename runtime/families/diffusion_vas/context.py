"""Context layouts: which CLIP row each of the U-Net's rows attends to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .config import ContextLayout


def context_rows(
    embeddings: NDArray[np.float32], layout: ContextLayout, guided: bool, xp: Any = np
) -> NDArray[np.float32]:
    """The context of every CFG row.

    The authors concatenate each frame's embedding with its zero negative before they concatenate the frames, so
    that in the `reference` layout the 2T rows run 0, e(0), 0, e(1), ... while the U-Net's own rows are all
    unconditional frames, then all conditional ones. `aligned` is what was meant: zeros for the unconditional row,
    e(f) for frame f of the conditional one. `sequence` has the same rows, but every frame attends to all T of them.

    Args:
        embeddings: [T, D], one per frame.
        guided: whether there is an unconditional row; without one all layouts have the row e(0) ... e(T-1).

    Returns:
        [B, T, D], B = 2 if guided (unconditional first), else 1.
    """
    if not guided:
        return embeddings[None]
    zeros = xp.zeros_like(embeddings)
    interleaved = layout == "reference"
    rows: NDArray[np.float32] = xp.stack([zeros, embeddings], axis=1 if interleaved else 0)
    return rows.reshape(2, *embeddings.shape)


def check_layout(wanted: ContextLayout | None, exported: ContextLayout) -> ContextLayout:
    """The layout to use: the bundle's own, or another that its graphs can serve.

    Raises:
        InputError: the graphs were written for the other kind of context.
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
