"""Turns the decoder's logits into masks of the picture's size, as torch's bicubic `interpolate` would."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...arrays.resampling import Size, torch_bicubic, torch_cubic_taps


def masks_at(logits: Array, size: Size, threshold: float, xp: Any = np) -> Array:
    """Returns bool [N, H, W], where bicubic logits of some size are at least the threshold.

    On the host OpenCV resizes, ten times as fast, and pixels so near the threshold that its rounding could matter are
    computed as torch computes them.

    Args:
        logits: float32 [N, h, w].
        size: (H, W).
    """
    if xp is not np:
        return torch_bicubic(logits, size, xp) >= np.float32(threshold)
    masks = np.empty((len(logits), *size), np.bool_)
    for mask, low in zip(masks, logits, strict=True):
        wide = bicubic(low, size)
        np.greater_equal(wide, np.float32(threshold), out=mask)
        # Positions are rounded to 24 bits; a step of them changes a logit by little more than the largest one.
        doubtful = float(np.abs(low).max(initial=0)) * max(*low.shape, *size) * 2.0**-22
        at = np.nonzero(np.abs(wide - np.float32(threshold)) < doubtful)
        mask[at] = _bicubic_at(low, size, at) >= np.float32(threshold)
    return masks


def bicubic(low: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Resizes logits [h, w] on the host to [H, W], by OpenCV."""
    import cv2

    wide: NDArray[np.float32] = cv2.resize(low, size[::-1], interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return wide


def _bicubic_at(low: NDArray[np.float32], size: Size, at: tuple[NDArray[np.intp], ...]) -> NDArray[np.float32]:
    """Returns some pixels float32 [K] of `torch_bicubic`."""
    (rows, down), (columns, across) = (torch_cubic_taps(low.shape[axis], size[axis]) for axis in (0, 1))
    taps = low[rows[at[0]][:, :, None], columns[at[1]][:, None, :]] * across[at[1]][:, None, :]
    wide = taps[..., 0] + taps[..., 1] + taps[..., 2] + taps[..., 3]
    parts = wide * down[at[0]]
    found: NDArray[np.float32] = parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3]
    return found
