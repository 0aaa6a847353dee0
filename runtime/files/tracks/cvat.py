"""CVAT's XML 1.1, for video and for images (docs.cvat.ai/docs/dataset_management/formats/format-cvat).

- for video: `<track id label><polygon|mask frame keyframe outside ...>`. The exporter writes every frame of a track
  that is not outside (cvat `dataset_manager/formats/cvat.py`), numbered as in the video. Frames without a shape where
  the object is not said to be outside, as in files of keyframes alone, are missing from its timeline: nothing is
  interpolated.
- for images: `<image name width height><polygon|mask label group_id ...>`. The id of an object is its group, or its
  label if it has none.

The runs of a `<mask>` go row by row through its box, first those of the background.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..listing import join_ranges
from ..rle import MAX_SIDE, as_runs, fill_runs
from .gathering import gather, one_size
from .naming import order_names
from .segments import CocoSegment, Region, Segment, Size
from .track import Id, Timeline, Track, Tracks

_AREAS = ("polygon", "mask")
_SHAPES = (*_AREAS, "box", "polyline", "points", "cuboid", "ellipse", "skeleton")
_MOST_FRAMES = 1_000_000
_IMAGE_ADVICE = "give the parts of one object a common group, and different objects different ones"


def read_cvat(path: Path, root: ET.Element) -> Tracks | None:
    """Reads the root element of CVAT's XML; returns None for other documents."""
    if root.tag != "annotations" or (root.find("track") is None and root.find("image") is None):
        return None
    if len(root.findall("meta/project/tasks/task")) > 1:
        raise InputError(f"{path} holds several tasks of a project, each with frames from 0; export one task.")
    if root.find("track") is not None:
        return _read_video(path, root)
    images = root.findall("image")
    names = [image.get("name", "") for image in images]
    order = order_names(names)
    if len(order) < len(names) or "" in order:
        raise InputError(f"{path} has images of the same name, or of none; expected one name each.")
    timeline = Timeline(len(order), list(order), False, one_size(map(_image_size, images)))
    tracks = _image_tracks(path, images, order, timeline)
    return Tracks(path, "CVAT for images", tracks)


def _read_video(path: Path, root: ET.Element) -> Tracks:
    size = one_size([(_number(root, "original_size/height"), _number(root, "original_size/width"))])
    elements = root.findall("track")
    shapes = [_shapes_by_frame(path, element) for element in elements]
    frames = _frames(
        path, root, [frame for track in shapes for frame, shape in track.items() if not _is_outside(shape)]
    )
    tracks = []
    for element, by_frame in zip(elements, shapes, strict=True):
        name = element.get("id")
        gaps = set(_gaps(by_frame, frames))
        kept = [frame for frame in frames if frame not in gaps]
        timeline = Timeline(len(kept), [str(frame) for frame in kept], True, size)
        where = f"in frame {join_ranges(gaps)}, where it is not outside either"
        notes = [f"{path} has no shape of object {name} {where}: no masks for these."] if gaps else []
        tracks.append(replace(_video_track(path, name, timeline, by_frame), notes=notes))
    return Tracks(path, "CVAT for video", tracks)


def _shapes_by_frame(path: Path, track: ET.Element) -> dict[int, ET.Element]:
    shapes: dict[int, ET.Element] = {}
    for shape in track:
        if shape.tag in _SHAPES:
            frame = _whole(shape.get("frame"))
            if frame is None or frame in shapes:
                number = str(shape.get("frame"))[:20]
                raise InputError(
                    f"{path} has a {shape.tag} of track {track.get('id')} in frame {number}, which is no number or "
                    "occurs twice; expected 0, 1, 2, ..."
                )
            shapes[frame] = shape
    return dict(sorted(shapes.items()))


def _frames(path: Path, root: ET.Element, mentioned: Sequence[int]) -> range:
    """Returns the numbers of the task's frames, as the file states them, or all up to the last that has a shape."""
    step = 1
    for text in (root.findtext(f"meta/{level}/frame_filter") for level in ("task", "job")):
        if text and text.strip().startswith("step="):
            step = max(_whole(text.strip()[5:]) or 1, 1)
    start, stop = _number(root, "start_frame") or 0, _number(root, "stop_frame")
    last = max([*mentioned, stop or 0])
    frames = range(start, last + 1, step)
    if len(frames) > _MOST_FRAMES:
        raise InputError(f"{path} names frames up to {last}; expected at most {_MOST_FRAMES} frames.")
    strange = next((frame for frame in mentioned if frame not in frames), None)
    if strange is not None:
        raise InputError(
            f"{path} has a shape in frame {strange}, which is none of its task ({start} to {last} by {step})."
        )
    return frames


def _number(root: ET.Element, name: str) -> int | None:
    levels = ("meta/task/", "meta/job/", "meta/")
    return next((n for level in levels if (n := _whole(root.findtext(f"{level}{name}"))) is not None), None)


def _image_size(image: ET.Element) -> tuple[int | None, int | None]:
    return _whole(image.get("height")), _whole(image.get("width"))


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _is_outside(shape: ET.Element) -> bool:
    return shape.get("outside") == "1"


def _gaps(by_frame: dict[int, ET.Element], frames: range) -> Iterator[int]:
    """Yields the frames without a shape that follow one in which the object is seen, until it is mentioned again."""
    mentioned = list(by_frame)
    for before, after in zip(mentioned, [*mentioned[1:], frames.stop], strict=True):
        if not _is_outside(by_frame[before]):
            yield from range(before + frames.step, min(after, frames.stop), frames.step)


def _video_track(path: Path, name: str | None, timeline: Timeline, by_frame: dict[int, ET.Element]) -> Track:
    visible = {str(frame): shape for frame, shape in by_frame.items() if not _is_outside(shape)}
    other = next((shape.tag for shape in visible.values() if shape.tag not in _AREAS), None)
    refusal = f"draws object {name} as a {other}; expected polygons or masks" if other else ""
    position = {frame: i for i, frame in enumerate(timeline.names or ())}
    segments = (
        {} if other else {position[frame]: CvatShape(shape.attrib, timeline.size) for frame, shape in visible.items()}
    )
    return Track(path, name, timeline, segments, refusal)


def _image_tracks(path: Path, images: Sequence[ET.Element], order: dict[str, int], timeline: Timeline) -> list[Track]:
    shapes = [(image, shape) for image in images for shape in image if shape.tag in _SHAPES]
    kinds: dict[str, str] = {}

    def shown() -> Iterator[tuple[Timeline, Id, int, Segment]]:
        for image, shape in shapes:
            group = shape.get("group_id", "0")
            name = group if group != "0" else shape.get("label", "")
            if shape.tag not in _AREAS:
                kinds[name] = shape.tag
            yield timeline, name, order[image.get("name", "")], CvatShape(shape.attrib, one_size([_image_size(image)]))

    return [
        track
        if (kind := kinds.get(str(track.id))) is None
        else Track(path, track.id, timeline, {}, f"draws object {track.id} as a {kind}; expected polygons or masks")
        for track in gather(path, shown(), _IMAGE_ADVICE)
    ]


@dataclass(frozen=True)
class CvatShape:
    """The attributes of a `<polygon>` or a `<mask>`, in a picture of (height, width) `drawn_on`, if that is stated."""

    stored: dict[str, str]
    drawn_on: Size | None
    expected: ClassVar[str] = "a polygon or mask of CVAT"

    def size(self) -> Size | None:
        """Returns the size of the picture."""
        return self.drawn_on

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether the shape covers no pixel; False for polygons if the size of the picture is not known."""
        return self._segment().is_empty(self.drawn_on or size)

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Draws the shape in a picture of `size`."""
        return self._segment().decode(self.drawn_on or size)

    def _segment(self) -> Segment:
        if "rle" not in self.stored:
            pairs = [pair.split(",") for pair in self.stored.get("points", "").split(";")]
            return CocoSegment([[float(value) for pair in pairs for value in pair]])
        left, top, width, height = (_whole(self.stored.get(name)) for name in ("left", "top", "width", "height"))
        if left is None or top is None or not width or not height or max(width, height) > MAX_SIDE:
            raise ValueError("its box is not left, top, width and height in pixels")
        counts = [_whole(count) for count in self.stored["rle"].split(",")]
        return Region(fill_runs(as_runs(counts), width * height).reshape(height, width), top, left)
