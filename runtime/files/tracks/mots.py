"""The text files of MOTS: `time_frame id class_id height width rle` in each line (vision.rwth-aachen.de/page/mots)."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from .gathering import gather
from .segments import CocoSegment
from .track import Timeline, Tracks

_IGNORED = "10000"  # regions that an evaluation leaves out
_MOST_FRAMES = 1_000_000


def read_mots(path: Path, text: str) -> Tracks | None:
    """Reads a text file of MOTS; returns None for other texts."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not rows or not all(
        len(row) == 6 and all(part.isdecimal() and part.isascii() for part in row[:5]) for row in rows
    ):
        return None
    if any(len(part) > 9 for row in rows for part in row[:5]):
        raise InputError(f"{path} has a number of more than nine digits; expected frame, id, class, height and width.")
    numbers = [int(row[0]) for row in rows]
    first, last = min(numbers), max(numbers)
    if last - first >= _MOST_FRAMES:
        raise InputError(f"{path} names frames from {first} to {last}; expected at most {_MOST_FRAMES} frames.")
    # A frame without any object has no line. Files count from 0 (KITTI) or from 1 (MOTChallenge), as the frames do.
    timeline = Timeline(last - first + 1, [str(number) for number in range(first, last + 1)])
    shown = (
        (
            timeline,
            int(row[1]),
            int(row[0]) - first,
            CocoSegment({"size": [int(row[3]), int(row[4])], "counts": row[5]}),
        )
        for row in rows
        if row[1] != _IGNORED
    )
    left = sum(row[1] == _IGNORED for row in rows)
    notes = [f"{path} has {left} regions to be ignored (id {_IGNORED}), which are left out."] if left else []
    return Tracks(path, "a text file of MOTS", gather(path, shown), notes)
