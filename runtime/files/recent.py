"""Keeps the pictures that were decoded last, so that a short step back in a clip decodes none twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE = 8  # pictures that are decoded at once
MOST_BYTES = 96 * 2**20
"""Of the pictures that are kept: 36 of 720p."""
MOST = 64
"""Pictures that are kept. Small ones would otherwise fill the bytes only after thousands of frames, and a long run's
memory would seem to grow with the clip."""


class Recent:
    """Reads arrays by number through a function, and keeps the last ones.

    Args:
        read: returns the arrays [n, ...] of numbers, which rise.
        most: bytes to keep; the arrays of the last picture are kept in any case.
        count: pictures to keep.
    """

    def __init__(self, read: Callable[[list[int]], NDArray[Any]], most: int = MOST_BYTES, count: int = MOST) -> None:
        self._read, self._most, self._count = read, most, count
        self._kept: dict[int, NDArray[Any]] = {}

    def get(self, numbers: range) -> NDArray[Any]:
        """Returns the arrays [n, ...] of numbers, which rise; reads those that are not kept, in order."""
        result: NDArray[Any] | None = None
        for begin in range(0, len(numbers), _PIECE):
            piece = numbers[begin : begin + _PIECE]
            missing = [number for number in piece if number not in self._kept]
            fresh = dict(zip(missing, self._read(missing) if missing else (), strict=True))
            for place, number in enumerate(piece, begin):
                one = fresh.get(number, self._kept.get(number))
                assert one is not None
                if result is None:
                    result = np.empty((len(numbers), *one.shape), one.dtype)
                result[place] = one
            self._keep(fresh)
        assert result is not None, "no numbers were asked for"
        return result

    def _keep(self, fresh: dict[int, NDArray[Any]]) -> None:
        for number, one in fresh.items():
            self._kept[number] = one.copy()  # a view would keep its whole piece
        size = sum(one.nbytes for one in self._kept.values())
        for number in list(self._kept)[:-1]:
            if size <= self._most and len(self._kept) <= self._count:
                break
            size -= self._kept.pop(number).nbytes
