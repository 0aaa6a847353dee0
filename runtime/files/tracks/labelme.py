"""The files of LabelMe, one per picture: `{"shapes": [{"label", "group_id", "points", "shape_type"}], "imagePath"}`.

Shapes are drawn as wkentaro/labelme's `labelme/utils/shape.py` does. What belongs together has one label and one
`group_id` there. Here the id of an object is its group, or its label if it has none; `label:group` where a group alone
could be two objects.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..pictures import describe_size
from .gathering import one_size, read_id
from .naming import file_name, order_names
from .segments import Region, Segment, Size, Union, read_points, require_size
from .track import Id, Timeline, Track, Tracks

_AREAS = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")
_ADVICE = "give the parts of one object a common group_id, and different objects different ones"


def read_labelme(path: Path, files: Sequence[tuple[Path, Any]], key: str) -> Tracks | None:
    """Reads files of LabelMe, one per frame; returns None for other layouts."""
    documents = [document for _, document in files]
    if not documents or not all(map(is_labelme, documents)):
        return None
    names, notes = _names(files)
    order = order_names(names)
    size = one_size([(held.get("imageHeight"), held.get("imageWidth")) for held in documents])
    timeline = Timeline(len(order), list(order), False, size)
    parts: dict[tuple[str, Id], dict[int, list[Shape]]] = {}
    for name, (file, held) in zip(names, files, strict=True):
        drawn_on = one_size([(held.get("imageHeight"), held.get("imageWidth"))])
        for shape in held["shapes"]:
            if not isinstance(shape, dict):
                raise InputError(f"{file} has a shape that is no object; expected label, points and shape_type.")
            label, group = (
                str(read_id(file, "label", shape.get("label"))),
                read_id(file, "group_id", shape.get("group_id")),
            )
            parts.setdefault((label, group), {}).setdefault(order[name], []).append(Shape(shape, drawn_on))
    ids = _ids(list(parts))
    tracks = [_track(path, ids[who], timeline, who[1] is not None, frames) for who, frames in parts.items()]
    return Tracks(path, "LabelMe shapes", tracks, notes)


def is_labelme(document: Any) -> bool:
    """Returns whether json is a file of LabelMe."""
    held = document if isinstance(document, dict) else {}
    return isinstance(held.get("shapes"), list) and ("imagePath" in held or "imageHeight" in held)


def _names(files: Sequence[tuple[Path, Any]]) -> tuple[list[str], list[str]]:
    """Returns the names of the pictures, and notes; those of the files where `imagePath` does not tell them apart."""
    stored = [held.get("imagePath") for _, held in files]
    names = [file_name(name) if isinstance(name, str) else "" for name in stored]
    if all(names) and len(set(names)) == len(names):
        return names, []
    note = f"{files[0][0].parent} has files whose imagePath does not tell them apart; their own names are used."
    return [file.stem for file, _ in files], [note]


def _ids(found: Sequence[tuple[str, Id]]) -> dict[tuple[str, Id], Id]:
    """Returns the id of each label and group."""
    short = {who: who[0] if who[1] is None else who[1] for who in found}
    texts = [str(name) for name in short.values()]
    return {
        who: f"{who[0]}:{who[1]}" if who[1] is not None and texts.count(str(name)) > 1 else name
        for who, name in short.items()
    }


def _track(path: Path, name: Id, timeline: Timeline, grouped: bool, frames: dict[int, list[Shape]]) -> Track:
    refusal = ""
    segments: dict[int, Segment] = {}
    for entry, shapes in frames.items():
        kinds = [str(shape.kind)[:20] for shape in shapes]
        other = next((kind for kind in kinds if kind not in _AREAS), None)
        if other is not None:
            refusal = f"marks object {name} by a {other} in frame {timeline.name(entry)}; expected polygons or masks"
        elif len(shapes) > 1 and not grouped:
            refusal = f"has {len(shapes)} shapes labelled {name} in frame {timeline.name(entry)}; {_ADVICE}"
        segments[entry] = Union(shapes)
    return Track(path, name, timeline, segments, refusal)


@dataclass(frozen=True)
class Shape:
    """A shape of LabelMe, drawn on a picture of (height, width) `drawn_on`, if the file states it."""

    stored: dict[str, Any]
    drawn_on: Size | None
    expected: ClassVar[str] = "a shape of LabelMe"

    @property
    def kind(self) -> Any:
        """The type of the shape; old files have none for polygons."""
        return self.stored.get("shape_type") or "polygon"

    def size(self) -> Size | None:
        """Returns the size of the picture."""
        return self.drawn_on

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether the shape covers no pixel; False if the size of the picture is not known."""
        size = self.drawn_on or size
        return size is not None and not self.decode(size).any()

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Draws the shape in a picture of `size`."""
        height, width = require_size(self.drawn_on or size, "shapes")
        points, kind = read_points(self.stored.get("points")), self.kind
        if len(points) < (2 if kind in ("circle", "rectangle", "mask") else 3):
            raise ValueError(f"a {kind} of {len(points)} points")
        if kind == "mask":
            return _bitmap(self.stored.get("mask"), points).decode((height, width))
        from PIL import Image, ImageDraw

        picture = Image.new("1", (width, height))
        _draw(ImageDraw.Draw(picture), kind, points)
        return np.asarray(picture, np.bool_)


def _draw(draw: Any, kind: str, points: list[tuple[float, float]]) -> None:
    if kind == "circle":
        (x, y), (on_x, on_y) = points[:2]
        radius = float(np.hypot(x - on_x, y - on_y))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = map(sorted, zip(*points, strict=True))
        draw.rectangle([left, top, right, bottom], outline=1, fill=1)
    else:
        draw.polygon(points, outline=1, fill=1)


def _bitmap(stored: Any, points: list[tuple[float, float]]) -> Region:
    """Decodes a mask, a PNG in base64 whose corners are the two points."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(stored, validate=True))) as image:
            pixels = np.asarray(image) > 0
    except (TypeError, OSError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise ValueError("its mask is no PNG in base64") from error
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points[:2])
    if pixels.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(f"its mask is not as large as the box of its points ({describe_size(pixels.shape)})")
    return Region(pixels, top, left)
