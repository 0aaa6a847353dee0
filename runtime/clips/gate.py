"""Which frames of an object need a network, by geometry alone.

A frame needs one if something that is nearer borders the visible part, since more of the object may lie behind it, or
if the object has vanished, unless it left over the frame's edge. In all others the whole object is what is seen of it.

Something nearer borders the object where a pixel that is not the object's, within two pixels of one that is, is nearer
by more than the tolerance than all of the object within a pixel of that one. (Not than that pixel alone: where depth is
blurred, the tips of an object are farther than its bays.) An object has vanished if it is not seen, and in one of the
frames nearest in time in which it is, it does not touch the frame's edge, or something nearer borders it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Judgement = Literal["hidden", "vanished", "open", "outside"]
"""Of a frame: something nearer borders the object; it is nowhere and did not leave; nothing nearer borders it; it left
over the frame's edge or was never seen. The first two need a network."""
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
_REACH = 2  # pixels around the visible part
_OUTSIDE = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
_INSIDE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Gate:
    """Judges the frames of objects.

    Attributes:
        tolerance: share of the depth range by which something must be nearer to count, 0 or more. Depth at an object's
            rim is a mixture of both sides, and that of networks is noisy.

    Raises:
        InputError: a tolerance out of range.
    """

    tolerance: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf:
            raise InputError(
                f"gate tolerance {self.tolerance:g}: expected a share of the depth range, 0 or more.",
                field="gate_tolerance",
            )

    def judge(self, modal: NDArray[np.bool_], depth: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Judges each frame of an object.

        Args:
            modal: visible masks, bool [n, h, w].
            depth: normalised, float32 [n, h, w] in [-1, 1], nearer is larger.

        Returns:
            indices into `JUDGEMENTS`, uint8 [n].
        """
        result = np.full(len(modal), JUDGEMENTS.index("outside"), np.uint8)
        seen = np.flatnonzero(modal.any(axis=(1, 2)))
        for t in seen:
            result[t] = JUDGEMENTS.index("hidden" if self._is_bordered(modal[t], depth[t]) else "open")
        if len(seen):
            hidden = result[seen] == JUDGEMENTS.index("hidden")
            stays = hidden | np.array([not _touches_edge(modal[t]) for t in seen])
            for t in np.setdiff1d(np.arange(len(modal)), seen):
                after = int(np.searchsorted(seen, t))
                beside = [i for i in (after - 1, after) if 0 <= i < len(seen)]
                if stays[beside].any():
                    result[t] = JUDGEMENTS.index("vanished")
        return result

    def _is_bordered(self, modal: NDArray[np.bool_], depth: NDArray[np.float32]) -> bool:
        """Returns whether something nearer borders the object in a frame."""
        left, top, width, height = cv2.boundingRect(modal.astype(np.uint8))
        rows = slice(max(top - _REACH, 0), top + height + _REACH)
        columns = slice(max(left - _REACH, 0), left + width + _REACH)
        seen, near = modal[rows, columns], depth[rows, columns]
        around = cv2.dilate(np.where(seen, np.float32(-np.inf), near), _OUTSIDE)
        within = cv2.dilate(np.where(seen, near, np.float32(-np.inf)), _INSIDE)
        return bool((around[seen] - within[seen] > 2 * self.tolerance).any())


def require_gate(gate: object) -> None:
    """Raises `InputError` unless `gate` is one or None."""
    if gate is not None and not isinstance(gate, Gate):
        raise InputError(f"gate {gate!r}: expected `amodal.Gate`, or None to draw all.", field="gate")


def needs_network(judged: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns which of the judged frames need a network."""
    return judged < JUDGEMENTS.index("open")


def _touches_edge(modal: NDArray[np.bool_]) -> bool:
    return bool(modal[0].any() or modal[-1].any() or modal[:, 0].any() or modal[:, -1].any())
