"""Reads the boxes of a detector: COCO results json, and COCO annotations with boxes.

Results are a list of `{"image_id", "bbox": [x, y, width, height], "category_id", "score"}` (cocodataset.org/#format-
results); annotations have such a list under `annotations`, and no scores. `amodal.runtime.files.detection_images` finds
the picture of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from .listing import require_path
from .pictures import Size, describe_size

BoxFormat = Literal["xywh", "xyxy"]
ImageId = int | str
_EXPECTED = "COCO results, a list of {image_id, bbox: [x, y, width, height], category_id, score}"
_ROUNDED = 1e-6  # by which half precision and its like may put a score beyond 1
_BEYOND = 1.5  # pixels by which rounding may put a box beyond the picture


@dataclass(frozen=True)
class Detections:
    """N boxes of a detector, in the order of the file.

    Attributes:
        path: the file.
        images: what the file calls the picture of each.
        files: the `file_name` of each, None where it has none.
        bbox: the four numbers as they stand in the file, float64 [N, 4]; finite.
        categories: `category_id` of each.
        scores: float64 [N] in [0, 1]; 1 where the file has none.
        places: of each in the file, from 0.
        notes: warnings.
    """

    path: Path
    images: Sequence[ImageId]
    files: Sequence[str | None]
    bbox: NDArray[np.float64]
    categories: Sequence[ImageId]
    scores: NDArray[np.float64]
    places: Sequence[int]
    notes: list[str] = field(default_factory=list)

    def name(self, index: int) -> str:
        """Returns a detection as messages name it."""
        numbers = ", ".join(f"{value:g}" for value in self.bbox[index])
        return f"detection {self.places[index]} of {self.path} (image {self.images[index]}, bbox [{numbers}])"

    def above(self, score: float) -> Detections:
        """Returns those with at least this score."""
        return self.only(self.scores >= score)

    def only(self, wanted: NDArray[np.bool_]) -> Detections:
        """Returns those that are wanted, bool [N]."""
        kept = [int(i) for i in np.flatnonzero(wanted)]
        lists: Sequence[Sequence[Any]] = (self.images, self.files, self.categories, self.places)
        images, files, categories, places = ([values[i] for i in kept] for values in lists)
        return Detections(self.path, images, files, self.bbox[kept], categories, self.scores[kept], places, self.notes)


@argument("detections")
def read_detections(path: PathLike) -> Detections:
    """Reads the boxes of a detector.

    Raises:
        InputError: no such file, no json, another layout, no detections, a detection with a field that is missing or
            cannot be read, or with a category that the file does not list; the first one is named.
    """
    file = require_path(path, f"a json file of {_EXPECTED}")
    if file.is_dir():
        raise InputError(f"{file} is a folder; expected one json file of {_EXPECTED}.")
    document = read_json(file, _EXPECTED)
    rows = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file} holds no detections as they are read; expected {_EXPECTED}.")
    if not rows:
        raise InputError(f"{file} holds no detections; expected {_EXPECTED}.")
    if not any("bbox" in row for row in rows) and any("segmentation" in row for row in rows):
        raise InputError(f"{file} holds masks without boxes; give it as `masks`, which takes the masks' boxes.")
    notes = []
    unscored = sum(row.get("score") is None for row in rows)
    if unscored:
        notes.append(f"{file} has {unscored} of {len(rows)} detections without a score; it is taken as 1.")
    read: list[Callable[[Any], Any]] = [_as_id, _as_box, _as_id, _as_score]
    fields = ("image_id", "bbox", "category_id", "score")
    columns: list[list[Any]] = [[] for _ in fields]
    for index, row in enumerate(rows):
        for column, name, convert in zip(columns, fields, read, strict=True):
            value = row.get(name, 1.0 if name == "score" else None)
            column.append(_convert(file, index, name, 1.0 if name == "score" and value is None else value, convert))
    images, boxes, categories, scores = columns
    names = [name if isinstance(name := row.get("file_name"), str) else None for row in rows]
    numbers = np.array(boxes, np.float64), categories, np.array(scores, np.float64)
    read_rows = Detections(file, images, names, *numbers, range(len(rows)), notes)
    if isinstance(document, dict) and (known := categories_of(document)):
        require_categories(read_rows, known, file)
    return read_rows


def require_categories(detections: Detections, known: Mapping[ImageId, str], listed: PathLike) -> None:
    """Raises `InputError`, which names the first, if a detection has a category that `listed` does not list."""
    for index, category in enumerate(detections.categories):
        if category not in known:
            shown = ", ".join(map(str, list(known)[:10])) + (", ..." if len(known) > 10 else "")
            raise InputError(
                f"{detections.name(index)} has the category {category}, which is none of {listed}: {shown}."
            )


@argument("detections")
def find_boxes(
    detections: Detections, sizes: Sequence[Size], box_format: BoxFormat | None = None
) -> NDArray[np.float64]:
    """Returns the boxes as x1, y1, x2, y2 in pixels, float64 [N, 4]; they may reach beyond the picture.

    Args:
        sizes: (height, width) of the picture of each detection.
        box_format: `xywh` for x, y, width and height, as COCO has it; `xyxy` for two corners. None for COCO's, unless
            most boxes would then reach beyond their pictures and all lie within them as corners, which is refused.

    Raises:
        InputError: boxes that can be read in two ways or are relative to the picture's size; one that is empty,
            inverted, or outside of its picture; the first one is named.
    """
    if box_format is not None and box_format not in get_args(BoxFormat):
        raise InputError(f"`box_format` is {box_format!r}; expected xywh or xyxy.", field="box_format")
    given = detections.bbox
    far = np.array([[size[1], size[0]] for size in sizes], np.float64)
    if (np.abs(given) <= 1).all() and (far > 2).all():
        raise InputError(
            f"{detections.path} has only boxes of numbers up to 1, which are shares of the picture; expected pixels: "
            "multiply x and width by the picture's width, y and height by its height."
        )
    corners = given[:, 2:] > given[:, :2]
    as_sides, as_corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1), given
    if box_format is None:
        beyond = (as_sides[:, 2:] > far + _BEYOND).any(axis=1)
        if beyond.mean() > 0.5 and corners.all() and (given[:, 2:] <= far + _BEYOND).all():
            raise InputError(
                f"{detections.path} can be read in two ways: as x, y, width and height, as COCO has it, "
                f"{int(beyond.sum())} of {len(given)} boxes reach beyond their pictures; as two corners, all lie "
                'within. Say which: `box_format="xywh"` or `box_format="xyxy"`.'
            )
    boxes = as_corners if box_format == "xyxy" else as_sides
    _require_boxes(detections, boxes, far)
    return boxes


def _require_boxes(detections: Detections, boxes: NDArray[np.float64], far: NDArray[np.float64]) -> None:
    """Refuses boxes without an area and boxes outside of their pictures."""
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= far).any(axis=1)
    for wrong, what in ((empty, "has no area in its picture"), (outside, "lies outside of its picture")):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            size = describe_size(far[first, ::-1].astype(int).tolist())
            more = f", and {int(wrong.sum()) - 1} more are like it" if wrong.sum() > 1 else ""
            raise InputError(
                f"{detections.name(first)} {what}, {size}{more}; expected x, y, width and height in pixels "
                '(`box_format="xywh"`) or two corners (`box_format="xyxy"`), at least partly within the picture.'
            )


def read_json(file: Path, expected: str) -> Any:
    """Reads a json file; raises `InputError` if it is none, with what was `expected`."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120].rstrip(".")
        raise InputError(f"{file} cannot be read as json ({reason}); expected {expected}.") from error


def _convert(file: Path, index: int, name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        shown = f"no {name}" if value is None else f"the {name} {json.dumps(value)[:60]}"
        raise InputError(f"detection {index} of {file} has {shown}; expected {error}.") from None


def _as_id(value: Any) -> ImageId:
    if isinstance(value, float) and value.is_integer():  # as pandas writes whole numbers
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a whole number or a name")
    return value


def _as_box(value: Any) -> list[float]:
    good = isinstance(value, list) and len(value) == 4 and all(_is_number(number) for number in value)
    if not good:
        raise ValueError("four finite numbers, x, y, width and height in pixels")
    return [float(number) for number in value]


def _as_score(value: Any) -> float:
    if not (_is_number(value) and 0 <= value <= 1 + _ROUNDED):
        raise ValueError("a probability from 0 to 1: apply a sigmoid to logits, divide percentages by 100")
    return min(float(value), 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def categories_of(document: Mapping[str, Any]) -> dict[ImageId, str] | None:
    """Returns the names of the categories of a COCO document by their id; None if it has none."""
    listed = document.get("categories")
    rows = [row for row in listed if isinstance(row, dict) and "id" in row] if isinstance(listed, list) else []
    return {row["id"]: str(row.get("name", row["id"])) for row in rows} or None
