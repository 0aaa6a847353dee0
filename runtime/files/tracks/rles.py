"""Plain RLEs: one per frame in a list, or by the name of the frame; and amodal's own masks.json.

- a list with one RLE (or null, or polygons) per frame, alone or under `masks`, `rles` or `segmentations`;
- `{frame: rle}`, and `{frame: {object: rle}}`, as SAM 2's `video_segments` are saved (facebookresearch/sam2
  `notebooks/video_predictor_example.ipynb` builds that dictionary);
- `{"frames": [{"modal": rle, "amodal": rle, "name"?}, ...]}` of amodal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import InputError
from .gathering import common_size, gather, read_track_id, sparse
from .naming import are_frame_numbers, order_names
from .segments import CocoSegment, is_rle
from .track import Timeline, Track, Tracks

_PICTURE = re.compile(r".*\.(png|jpe?g|bmp|tiff?|webp)", re.IGNORECASE)


def read_rles(path: Path, document: Any, key: str) -> Tracks | None:
    """Reads plain RLEs or a masks.json; returns None for other layouts."""
    if isinstance(document, list):
        return _one(path, document) if document and all(item is None or is_rle(item) for item in document) else None
    if not isinstance(document, dict) or not document:
        return None
    for name in ("segmentations", "masks", "rles"):
        held = document.get(name)
        if isinstance(held, list) and all(not item or is_rle(item) or _are_polygons(item) for item in held):
            return _one(path, held, document)
    frames = document.get("frames")
    if isinstance(frames, list) and frames and all(isinstance(frame, dict) for frame in frames):
        return _read_own(path, frames, key) if "figures" not in frames[0] else None
    if is_rle(document):
        return _one(path, [document])
    if all(value is None or is_rle(value) for value in document.values()):
        return _one(path, *_by_name(document))
    if all(
        isinstance(value, dict) and all(v is None or is_rle(v) for v in value.values()) for value in document.values()
    ):
        return _read_nested(path, document)
    return None


def _are_polygons(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(polygon, list) for polygon in value)


def _one(path: Path, segments: list[Any], document: Any = None, names: list[str] | None = None) -> Tracks:
    held = document if isinstance(document, dict) else {}
    timeline = Timeline(len(segments), names, names is not None and are_frame_numbers(names), _size(held))
    track = Track(path, read_track_id(path, held), timeline, sparse(segments, CocoSegment))
    return Tracks(path, "one RLE per frame", [track])


def _size(document: dict[str, Any]) -> tuple[int, int] | None:
    lists = [document[name] for name in ("images", "videos") if isinstance(document.get(name), list)]
    return common_size([*(entry for one in lists for entry in one), document])


def _by_name(document: dict[str, Any]) -> tuple[list[Any], None, list[str]]:
    names = list(order_names(document))
    return [document[name] for name in names], None, names


def _read_own(path: Path, frames: list[dict[str, Any]], key: str) -> Tracks | None:
    if not any(key in frame for frame in frames):
        raise InputError(f"{path} has frames without {key} masks, only {', '.join(map(str, frames[0]))}.")
    named = [frame.get("name") for frame in frames]
    names = [str(name) for name in named] if all(isinstance(name, str) for name in named) else None
    if names is not None and len(set(names)) < len(names):
        raise InputError(f"{path} has two frames of one name; expected names that tell the frames apart.")
    tracks = _one(path, [frame.get(key) for frame in frames], None, names)
    return Tracks(path, "a masks.json of amodal", tracks.objects)


def _read_nested(path: Path, document: dict[str, dict[str, Any]]) -> Tracks | None:
    """Reads {frame: {object: rle}}, or {object: {frame: rle}} where names of pictures show that it is that."""
    inner = {name for held in document.values() for name in held}
    if not inner:
        return None
    outer_names_pictures = any(map(_PICTURE.fullmatch, document))
    if not outer_names_pictures and all(map(_PICTURE.fullmatch, inner)):
        document = {frame: {name: held[frame] for name, held in document.items() if frame in held} for frame in inner}
    elif not outer_names_pictures and len(inner) > len(document):
        raise InputError(
            f"{path} can be read as {len(document)} frames with {len(inner)} objects or as {len(document)} objects in "
            f"{len(inner)} frames; write {{frame: {{object: rle}}}} with names of files as frames ('00000.jpg')."
        )
    order = order_names(document)
    names = list(order)
    timeline = Timeline(len(names), names, are_frame_numbers(names))
    shown = (
        (timeline, name, order[frame], CocoSegment(rle))
        for frame in names
        for name, rle in document[frame].items()
        if rle is not None
    )
    return Tracks(path, "RLEs by frame and object", gather(path, shown))
