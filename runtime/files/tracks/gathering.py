"""What the readers of several layouts share: ids, sizes, names, and annotations gathered into objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .segments import Segment, Size
from .track import Id, Timeline, Track

TRACK_KEYS = ("track_id", "object_id", "instance_id", "obj_id")
ONE_ID_EACH = "expected a track_id that tells them apart"


def read_id(path: Path, field: str, value: Any) -> Id:
    """Returns the id of an object or an image; raises `InputError` unless it is a number, text or None."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise InputError(f"{path} has {str(value)[:40]} as {field}; expected a number or a name.")
    return value


def read_track_id(path: Path, item: Mapping[str, Any]) -> Id:
    """Returns the first of `TRACK_KEYS` that an annotation has, itself or in its `attributes`; None without any."""
    attributes = item.get("attributes")
    for held in (item, attributes if isinstance(attributes, dict) else {}):
        name = next((name for name in TRACK_KEYS if held.get(name) is not None), None)
        if name is not None:
            return read_id(path, name, held[name])
    return None


def common_size(entries: Iterable[Any]) -> Size | None:
    """Returns (height, width), if all entries that state one state the same."""
    pairs = [(entry.get("height"), entry.get("width")) for entry in entries if isinstance(entry, dict)]
    return one_size(pairs)


def one_size(pairs: Iterable[tuple[Any, Any]]) -> Size | None:
    """Returns the (height, width) that all pairs have in common, leaving out those that are no whole numbers."""
    sizes = {(height, width) for h, w in pairs if (height := whole(h)) is not None and (width := whole(w)) is not None}
    return sizes.pop() if len(sizes) == 1 else None


def whole(value: Any) -> int | None:
    """Returns a number of json as an int if it is a whole one, such as 848 or 848.0; None otherwise."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if type(value) is int else None


def gather(
    path: Path, shown: Iterable[tuple[Timeline, Id, int, Segment]], advice: str = ONE_ID_EACH, unit: str = "frame"
) -> list[Track]:
    """Gathers (timeline, id, position, segment) into one track per video and id, in order of appearance.

    An object with two segments in one frame cannot be used: its track says so, and ends with `advice`.
    """
    segments: dict[tuple[str | None, str], dict[int, Segment]] = {}
    heads: dict[tuple[str | None, str], tuple[Timeline, Id]] = {}
    refusals: dict[tuple[str | None, str], str] = {}
    for timeline, name, entry, segment in shown:
        key = (timeline.video, str(name))
        heads.setdefault(key, (timeline, name))
        mine = segments.setdefault(key, {})
        if entry in mine:
            what = "two annotations" if name is None else f"two annotations of object {name}"
            refusals.setdefault(key, f"holds {what} for {unit} {timeline.name(entry)}; {advice}")
        mine[entry] = segment
    return [
        Track(path, name, timeline, segments[key], refusals.get(key, "")) for key, (timeline, name) in heads.items()
    ]


def sparse(segments: Sequence[Any], wrap: type[Any]) -> dict[int, Segment]:
    """Wraps the segments that are there (not null, nor an empty list), by position."""
    return {i: wrap(segment) for i, segment in enumerate(segments) if segment}
