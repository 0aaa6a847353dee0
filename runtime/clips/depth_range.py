"""The range of depth in a long clip: the median over frames of each frame's least and greatest value.

The paper scales a clip by its extremes. In a long one, something near that passes for a few frames would compress the
depth of all others; the medians leave it out, and clamp it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError


class DepthRange(NamedTuple):
    """Depth, nearer is larger, from `low` to `high`."""

    low: float
    high: float

    def normalise(self, depth: NDArray[Any]) -> NDArray[np.float32]:
        """Scales depth [n, h, w] to float32 in [-1, 1] and clamps it; without a range, everything is far: -1."""
        span = self.high - self.low if self.high > self.low else 1.0
        scaled = (depth.astype(np.float64) - self.low) / span * 2 - 1
        return np.clip(scaled, -1, 1).astype(np.float32)


class Extremes:
    """The extremes of the frames that were added.

    Args:
        last: how many frames count, the newest ones; None for all.
    """

    def __init__(self, last: int | None = None) -> None:
        self._lows: deque[float] = deque(maxlen=last)
        self._highs: deque[float] = deque(maxlen=last)

    def add(self, depth: NDArray[Any]) -> None:
        """Adds frames [n, h, w].

        Raises:
            InputError: a value is not finite.
        """
        flat = depth.reshape(len(depth), -1)
        lows, highs = flat.min(axis=1), flat.max(axis=1)
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            raise InputError("Depth has values that are not finite; replace them first.", field="depth")
        self._lows += lows.tolist()
        self._highs += highs.tolist()

    def range(self) -> DepthRange:
        """Returns the medians; there must be a frame."""
        return DepthRange(float(np.median(self._lows)), float(np.median(self._highs)))
