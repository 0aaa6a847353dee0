"""Writes masks as COCO results: one row for each, as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rle import encode_rle


class ResultRows:
    """A file of COCO results. Rows are written as they are added and not kept; `end` ends the list.

    Each is `{"image_id", "category_id", "segmentation": {"size", "counts"}, "score", ...}`, with `counts` in ASCII, as
    pycocotools reads it. There is no `bbox`: with one, pycocotools would take results for boxes.

    Attributes:
        count: rows so far.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._file.write("[")
        self.count = 0

    def close(self) -> None:
        """Closes the file, whether it was ended or not."""
        self._file.close()

    def end(self) -> None:
        """Ends the list."""
        self._file.write("\n]\n")
        self._file.close()

    def add(self, image_id: Any, category_id: Any, mask: NDArray[np.bool_], score: float, **more: Any) -> None:
        """Adds a mask bool [h, w]; `more` are further fields."""
        named = {"image_id": image_id, "category_id": category_id, "segmentation": encode_rle(mask)}
        row = json.dumps({**named, "score": float(score), **more}, allow_nan=False)
        self._file.write(f"{',' if self.count else ''}\n{row}")
        self.count += 1
