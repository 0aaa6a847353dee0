"""The JSON export of Label Studio: a list of tasks, one per picture, with regions drawn by brush or as polygons.

`[{"data": {"image"}, "annotations": [{"result": [{"type", "original_width", "original_height", "value"}]}]}]`, where
`value` has `rle`, the alpha and colours of all pixels in bit-packed runs, or `points` in percent of the picture
(labelstud.io/guide/task_format, labelstud.io/tags/brushlabels). The id of an object is its label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .gathering import gather, one_size, whole
from .naming import file_name, order_names
from .segments import CocoSegment, Segment, Size, require_size
from .track import Id, Timeline, Track, Tracks

_ADVICE = "give different objects different labels, and draw each as one region"
_PICTURE = re.compile(r".*\.(png|jpe?g|bmp|tiff?|webp|gif|avif)", re.IGNORECASE)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what the server puts before the name of an uploaded file


def read_label_studio(path: Path, document: Any, key: str) -> Tracks | None:
    """Reads the JSON export of Label Studio; returns None for other layouts."""
    tasks = document if isinstance(document, list) else [document]
    if not tasks or not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        return None
    if not all(isinstance(task.get("annotations"), list) for task in tasks):
        return None
    done = [(task, result) for task in tasks if (result := _result(path, task)) is not None]
    notes = [f"{path} has {len(tasks) - len(done)} tasks without an annotation."] if len(done) < len(tasks) else []
    names = [_picture_name(path, task) for task, _ in done]
    order = order_names(names)
    if len(order) < len(names):
        raise InputError(f"{path} has two tasks for one picture; expected one per frame.")
    regions = [region for _, result in done for region in result]
    size = one_size([(region.get("original_height"), region.get("original_width")) for region in regions])
    timeline = Timeline(len(order), list(order), False, size)
    shown = (
        (timeline, name, order[picture], segment)
        for picture, (_, result) in zip(names, done, strict=True)
        for name, segment in _segments(result)
    )
    tracks = [_refuse_boxes(track) for track in gather(path, shown, _ADVICE)]
    return Tracks(path, "Label Studio regions", tracks, notes)


def _result(path: Path, task: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the regions of a task's annotation; None if it has not been annotated."""
    kept = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
    if len(kept) > 1:
        name = _picture_name(path, task)
        raise InputError(f"{path} has {len(kept)} annotations of {name}; expected one, so export only the one to use.")
    result = kept[0].get("result") if kept else None
    return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else None


def _picture_name(path: Path, task: Mapping[str, Any]) -> str:
    """Returns the name of a task's picture, as it was before it was uploaded."""
    texts = [unquote(text).split("?d=")[-1].split("?")[0] for text in task["data"].values() if isinstance(text, str)]
    name = next((file_name(text) for text in texts if _PICTURE.fullmatch(text)), None)
    if name is None:
        raise InputError(f"{path} has task {str(task.get('id'))[:20]} without a picture; expected tasks of pictures.")
    return _UPLOADED.sub("", name, count=1) if _UPLOADED.match(name) else name


def _segments(result: Sequence[dict[str, Any]]) -> Iterator[tuple[Id, Segment]]:
    """Yields label and segment of each region once: the Labels tag repeats what the Brush tag has."""
    labels: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {}
    for i, region in enumerate(result):
        value = region.get("value")
        if not isinstance(value, dict):
            continue
        kind, name = str(region.get("type")), str(region.get("id", i))
        named = value.get(kind, value.get("labels"))
        if isinstance(named, list) and named:
            labels[name] = str(named[0])
        if "rle" in value or "points" in value or kind.startswith(("rectangle", "ellipse", "videorectangle")):
            values.setdefault(name, region)
    for name, region in values.items():
        yield labels.get(name, "no label"), Drawn(region)


@dataclass(frozen=True)
class Drawn:
    """A region of Label Studio."""

    stored: dict[str, Any]
    expected: ClassVar[str] = "a brush or polygon region of Label Studio"

    def size(self) -> Size | None:
        """Returns the size of the picture that the region was drawn on."""
        height, width = (whole(self.stored.get(f"original_{side}")) for side in ("height", "width"))
        return None if height is None or width is None else (height, width)

    def is_box(self) -> bool:
        """Returns whether the region is a rectangle or an ellipse."""
        return not {"rle", "points"} & set(self.stored["value"])

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether the region covers no pixel."""
        return not self.decode(size).any()

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Decodes the brush, or draws the polygon."""
        height, width = require_size(self.size() or size, "regions")
        if self.stored.get("image_rotation"):
            raise ValueError("it was drawn on a rotated picture")
        value = self.stored["value"]
        if "rle" in value:
            return unpack_brush(value["rle"], height * width * 4).reshape(height, width, 4)[..., 3] > 0
        points = value["points"]
        if not (isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points)):
            raise ValueError("its points are not pairs of x and y")
        polygon = [n for x, y in points for n in (x / 100 * width, y / 100 * height)]
        return CocoSegment([polygon]).decode((height, width))


def unpack_brush(stored: Any, count: int) -> NDArray[np.uint8]:
    """Unpacks the runs of a brush to uint8 [count]: the format of thi.ng/rle-pack.

    32 bits say how many values follow, 5 bits how wide they are, and 4 times 4 bits how wide the four kinds of run
    lengths are, each less 1. Then each run is 1 bit (whether a value repeats), 2 bits (the kind of its length), the
    length less 1, and one value or as many as the run is long. See HumanSignal/label-studio-converter `brush.py`.

    Raises:
        ValueError: not such bytes, or not `count` values.
    """
    if not (isinstance(stored, list) and all(type(n) is int and 0 <= n < 256 for n in stored)):
        raise ValueError("its rle is not a list of bytes")
    bits = np.unpackbits(np.array(stored, np.uint8)).tobytes().translate(bytes([48, 49]) + bytes(254)).decode()
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        if place > len(bits):
            raise ValueError("its rle is truncated")
        return int(bits[place - width : place], 2)

    if read(32) != count:
        raise ValueError("its rle is not of the size of the picture")
    word = read(5) + 1
    kinds = [read(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"its rle has values of {word} bits")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = read(1)
        end = at + 1 + read(kinds[read(2)])
        if end > count:
            raise ValueError("its rle is longer than the picture")
        if repeated:
            values[at:end] = read(word)
        else:
            values[at:end] = [read(word) for _ in range(end - at)]
        at = end
    return values


def _refuse_boxes(track: Track) -> Track:
    boxed = any(isinstance(segment, Drawn) and segment.is_box() for segment in track.segments.values())
    refusal = f"draws object {track.id} as a rectangle or an ellipse; expected brush or polygon regions"
    return replace(track, refusal=refusal) if boxed else track
