"""Arrays of one shape in a file, by number, for what is said of each frame of a long clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Rows:
    """Rows of one shape and dtype, written in any order; what was not written reads as 0.

    Args:
        path: of the file, which is made if need be.
        shape: of a row.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self._bytes = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        if not path.exists():
            path.touch()

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Writes rows [n, ...] from number `start` on."""
        data = np.ascontiguousarray(rows, self._dtype)
        with open(self.path, "r+b") as file:
            file.seek(start * self._bytes)
            file.write(data.tobytes())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Returns rows [stop - start, ...]."""
        with open(self.path, "rb") as file:
            file.seek(start * self._bytes)
            data = file.read((stop - start) * self._bytes)
        data += bytes((stop - start) * self._bytes - len(data))
        return np.frombuffer(data, self._dtype).reshape(-1, *self._shape).copy()


class MaskRows:
    """Masks bool [K, H, W] of K objects for each frame, a bit each."""

    def __init__(self, path: Path, objects: int, size: tuple[int, int]) -> None:
        self._size = size
        self._rows = Rows(path, (objects, -(-size[0] * size[1] // 8)), np.uint8)

    @property
    def path(self) -> Path:
        """The file."""
        return self._rows.path

    def write(self, start: int, masks: NDArray[np.bool_]) -> None:
        """Writes masks [n, K, H, W] from frame `start` on."""
        self._rows.write(start, np.packbits(masks.reshape(*masks.shape[:2], -1), axis=-1))

    def read(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Returns masks [stop - start, K, H, W]."""
        height, width = self._size
        bits = np.unpackbits(self._rows.read(start, stop), axis=-1, count=height * width)
        return bits.astype(bool).reshape(*bits.shape[:2], height, width)
