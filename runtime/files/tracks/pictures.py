"""Files that hold the masks of one picture each: RLEs by object, and the results of Grounded-SAM-2 for a picture.

- `{object: rle}`, or one RLE: the frame has the name of the file;
- `{"image_path", "annotations": [{"class_name", "segmentation"}]}` (IDEA-Research/Grounded-SAM-2
  `grounded_sam2_local_demo.py`). The id of an object is its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .gathering import gather, one_size, read_id
from .naming import are_frame_numbers, file_name, order_names
from .segments import CocoSegment, is_rle
from .track import Id, Timeline, Tracks


def read_grounded(path: Path, files: Sequence[tuple[Path, Any]], key: str) -> Tracks | None:
    """Reads the results of Grounded-SAM-2 for pictures; returns None for other layouts."""
    if not all(isinstance(held, dict) and {"image_path", "annotations"} <= set(held) for _, held in files):
        return None
    pictures: list[tuple[str, list[tuple[Id, Any]]]] = []
    for file, held in files:
        items = held["annotations"]
        if not isinstance(items, list) or not all(isinstance(item, dict) and "segmentation" in item for item in items):
            raise InputError(f"{file} has annotations without masks; expected a segmentation in each.")
        shown = [(read_id(file, "class_name", item.get("class_name")), item["segmentation"]) for item in items]
        pictures.append((file_name(str(held["image_path"])), shown))
    size = one_size([(held.get("img_height"), held.get("img_width")) for _, held in files])
    return _gathered(path, "results of Grounded-SAM-2", pictures, size)


def read_rle_files(path: Path, files: Sequence[tuple[Path, Any]], key: str) -> Tracks | None:
    """Reads files with the RLEs of one frame each; returns None for other layouts."""
    pictures: list[tuple[str, list[tuple[Id, Any]]]] = []
    for file, held in files:
        if not isinstance(held, dict) or not (is_rle(held) or all(v is None or is_rle(v) for v in held.values())):
            return None
        pictures.append((file.stem, [(None, held)] if is_rle(held) else list(held.items())))
    return _gathered(path, "RLEs in a file per frame", pictures, None)


def _gathered(
    path: Path, layout: str, pictures: list[tuple[str, list[tuple[Id, Any]]]], size: tuple[int, int] | None
) -> Tracks:
    names = [name for name, _ in pictures]
    order = order_names(names)
    if len(order) < len(names):
        raise InputError(f"{path} has two files for one picture; expected one per frame.")
    timeline = Timeline(len(order), list(order), are_frame_numbers(names), size)
    shown = (
        (timeline, object_id, order[name], CocoSegment(rle))
        for name, held in pictures
        for object_id, rle in held
        if rle is not None
    )
    return Tracks(path, layout, gather(path, shown))
