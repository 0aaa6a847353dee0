"""Keeps what the encoders make of an object's visible masks from window to window of a stream.

Neither CLIP's embedding of a mask nor its latents depend on the window: the noise that is added before encoding belongs
to the frame. Depth is encoded for each window, since the range by which it is scaled moves with the stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...pictures.objects import ObjectId
from .block_encoding import Encoded


class EncodedMasks:
    """Encoded masks of objects, by the number of the frame."""

    def __init__(self) -> None:
        self._kept: dict[ObjectId, dict[int, tuple[NDArray[np.float32], Encoded]]] = {}

    def of(self, object_id: ObjectId, modal: NDArray[np.float32], numbers: range) -> dict[int, Encoded]:
        """Returns what is kept, by the frame's place in the window.

        A mask that is another one than before, as of an object that was forgotten and is seen again, counts as new.

        Args:
            modal: float32 [n, H, W].
            numbers: of the n frames.
        """
        kept = self._kept.get(object_id, {})
        found = {place: kept[number] for place, number in enumerate(numbers) if number in kept}
        return {place: encoded for place, (mask, encoded) in found.items() if np.array_equal(mask, modal[place])}

    def keep(
        self, object_id: ObjectId, modal: NDArray[np.float32], numbers: range, encoded: Mapping[int, Encoded]
    ) -> None:
        """Keeps what was encoded, by the frame's place in the window; places after the last frame are left out."""
        kept = self._kept.setdefault(object_id, {})
        for place, one in encoded.items():
            if place < len(numbers):
                kept[numbers[place]] = (modal[place].copy(), one)

    def forget(self, first: int) -> None:
        """Forgets the frames before this one, and objects that have no others."""
        for object_id, kept in list(self._kept.items()):
            self._kept[object_id] = {number: one for number, one in kept.items() if number >= first}
            if not self._kept[object_id]:
                del self._kept[object_id]
