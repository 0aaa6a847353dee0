"""The files of SAM 2: the masklets of SA-V, and what the web demo sends.

- SA-V: `{"video_id", "masklet": [[rle per object] per frame], "masklet_id", ...}`. Videos of 24 frames per second are
  annotated in every fourth frame (facebookresearch/sam2 `sav_dataset/README.md` and `utils/sav_utils.py`).
- Web demo: `[{"frameIndex", "rleMaskList": [{"objectId", "rleMask"}]}]`, or one such object in a file per frame, in
  snake case too (facebookresearch/sam2 `demo/backend/server/data/data_types.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .gathering import gather, one_size, read_id, whole
from .segments import CocoSegment, Segment
from .track import Id, Timeline, Tracks

_STEP = 4  # frames of the video from one annotated frame to the next
_DEMO = (
    ("frameIndex", "rleMaskList", "objectId", "rleMask"),
    ("frame_index", "rle_mask_list", "object_id", "rle_mask"),
)


def read_masklets(path: Path, document: Any, key: str) -> Tracks | None:
    """Reads the masklets of an SA-V video; returns None for other layouts."""
    frames = document.get("masklet") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, list) for frame in frames):
        return None
    ids = document.get("masklet_id")
    most = max(map(len, frames), default=0)
    ids = ids if isinstance(ids, list) else list(range(most))
    if any(len(frame) != len(ids) for frame in frames):
        raise InputError(f"{path} has {len(ids)} masklet ids but frames with up to {most} masks; expected one per id.")
    names, note = _annotated_frames(path, len(frames), whole(document.get("video_frame_count")))
    size = one_size([(document.get("video_height"), document.get("video_width"))])
    timeline = Timeline(len(frames), names, names is not None, size)
    shown = (
        (timeline, read_id(path, "masklet_id", name), i, CocoSegment(rle))
        for i, frame in enumerate(frames)
        for name, rle in zip(ids, frame, strict=True)
        if rle
    )
    return Tracks(path, "SA-V masklets", gather(path, shown), [note])


def _annotated_frames(path: Path, count: int, in_video: int | None) -> tuple[list[str] | None, str]:
    """Returns the indices of the annotated frames where the length of the video shows them, and a note that says so."""
    if in_video is not None and count > 1 and count == -(-in_video // _STEP):
        names = [str(i * _STEP) for i in range(count)]
        note = f"{path} has {count} masks for the {in_video} frames of the video: of every fourth frame, from 0 on."
        return names, note
    if in_video == count:
        return [str(i) for i in range(count)], f"{path} has a mask for each of the {count} frames of the video."
    length = "does not say how long the video is" if in_video is None else f"says that the video has {in_video} frames"
    return None, f"{path} has {count} masks and {length}; they are taken in the order of the frames given."


def read_demo(path: Path, files: Sequence[tuple[Path, Any]], key: str) -> Tracks | None:
    """Reads what SAM 2's web demo sends, in one file or one per frame; returns None for other layouts."""
    frames = [frame for _, held in files for frame in (held if isinstance(held, list) else [held])]
    if not frames or not all(isinstance(frame, dict) for frame in frames):
        return None
    style = next((style for style in _DEMO if all(style[0] in frame and style[1] in frame for frame in frames)), None)
    if style is None:
        return None
    numbers = [whole(frame[style[0]]) for frame in frames]
    if any(number is None or number < 0 for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError(f"{path} has a {style[0]} that is no frame number or occurs twice; expected 0, 1, 2, ...")
    ordered = sorted(frames, key=lambda frame: whole(frame[style[0]]) or 0)
    names = [str(whole(frame[style[0]])) for frame in ordered]
    timeline = Timeline(len(ordered), names, True)
    return Tracks(path, "masks of SAM 2's web demo", gather(path, _shown(path, ordered, style, timeline)))


def _shown(
    path: Path, frames: Sequence[dict[str, Any]], style: tuple[str, str, str, str], timeline: Timeline
) -> Iterator[tuple[Timeline, Id, int, Segment]]:
    for i, frame in enumerate(frames):
        masks = frame[style[1]]
        if not isinstance(masks, list) or not all(isinstance(mask, dict) for mask in masks):
            raise InputError(f"{path} has no list of masks as {style[1]} of frame {timeline.name(i)}.")
        for mask in masks:
            rle = mask.get(style[3])
            if isinstance(rle, dict) and rle.get("order", "F") != "F":
                order = str(rle["order"])[:20]
                raise InputError(
                    f"{path} has an RLE of order {order} in frame {timeline.name(i)}; expected F (columns)."
                )
            if rle is not None:
                yield timeline, read_id(path, style[2], mask.get(style[2])), i, CocoSegment(rle)
