"""Writes masks as COCO results: one row for each, as they come."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rle import encode_rle


class ResultRows:
    """A file of COCO results; use it as a context manager. Rows are written as they are added and not kept.

    Each is `{"image_id", "category_id", "segmentation": {"size", "counts"}, "score", ...}`, with `counts` in ASCII, as
    pycocotools reads it. There is no `bbox`: with one, pycocotools would take results for boxes.

    Attributes:
        count: rows so far.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by `__exit__`
        self.count = 0

    def __enter__(self) -> ResultRows:
        self._file.write("[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.write("\n]\n")

    def add(self, image_id: Any, category_id: Any, mask: NDArray[np.bool_], score: float, **more: Any) -> None:
        """Adds a mask bool [h, w]; `more` are further fields."""
        named = {"image_id": image_id, "category_id": category_id, "segmentation": encode_rle(mask)}
        row = json.dumps({**named, "score": float(score), **more}, allow_nan=False)
        self._file.write(f"{',' if self.count else ''}\n{row}")
        self.count += 1
