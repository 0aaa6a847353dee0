"""The annotations of BURST, which may hold many videos (Ali2500/BURST-benchmark `ANNOTATION_FORMAT.md`).

`{"sequences": [{"seq_name", "height", "width", "annotated_image_paths", "segmentations": [{track_id: {"rle"}}]}]}`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError
from .gathering import common_size, gather, whole
from .segments import CocoSegment, Segment
from .track import Id, Timeline, Tracks


def read_burst(path: Path, document: Any, key: str) -> Tracks | None:
    """Reads the annotations of BURST; returns None for other layouts."""
    sequences = document.get("sequences") if isinstance(document, dict) else None
    if not isinstance(sequences, list) or not sequences:
        return None
    if not all(isinstance(one, dict) and isinstance(one.get("segmentations"), list) for one in sequences):
        return None
    shown = (annotation for one in sequences for annotation in _shown(path, one))
    return Tracks(path, "BURST annotations", gather(path, shown))


def _shown(path: Path, sequence: dict[str, Any]) -> Iterator[tuple[Timeline, Id, int, Segment]]:
    name, frames = str(sequence.get("seq_name", sequence.get("id"))), sequence["segmentations"]
    files = sequence.get("annotated_image_paths")
    files = files if isinstance(files, list) and all(isinstance(file, str) for file in files) else []
    if len(set(files)) != len(frames) or len(files) != len(frames):
        raise InputError(
            f"{path} has {len(frames)} frames of masks of {name}, but annotated_image_paths has {len(set(files))}; "
            "expected one name for each."
        )
    size = common_size([sequence])
    timeline = Timeline(len(frames), files, False, size, name)
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise InputError(f"{path} has no masks by track in frame {files[i]} of {name}; expected {{track: mask}}.")
        for track, held in frame.items():
            rle = held.get("rle") if isinstance(held, dict) else held
            if isinstance(rle, str):
                height, width = whole(sequence.get("height")), whole(sequence.get("width"))
                rle = {"size": [height, width], "counts": rle}
            yield timeline, track, i, CocoSegment(rle)
