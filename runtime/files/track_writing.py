"""Writes masks.json for a clip of any length: a line for each frame as it is finished, and the document at the end.

One object has the layout of `results.write_masks_json`. Several have COCO's, as `read_masks` reads it:

    videos       one, with its width, height and length
    images       frames, with `occlusion_order`: the ids of the objects that are in it, front to back
    annotations  an object in a frame, where anything of it is: `track_id` is its id as it was given, `segmentation`,
                 `area` and `bbox` are of the whole object, `visible_mask` and `visible_bbox` of what is seen of it;
                 `hidden_share` is the share of the whole that is not seen, `occluded_by` lists what is in front of it
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures.objects import ObjectId
from .results import described_rle, json_text


class FrameLines:
    """A file with a line of json for each frame, which a run that is resumed goes on with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def cut(self, size: int) -> None:
        """Leaves the first `size` bytes."""
        with open(self.path, "r+b") as file:
            file.truncate(size)

    def append(self, frames: Sequence[Mapping[str, Any]]) -> None:
        """Adds frames."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(frame)}\n" for frame in frames)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    def __iter__(self) -> Iterator[Any]:
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def described_frame(
    objects: Sequence[ObjectId],
    modal: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    order: Sequence[int],
    occluders: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Describes the masks bool [K, H, W] of a frame's objects, for a line.

    Args:
        order, occluders: of `amodal.runtime.pictures.occlusion.find_order`.
    """
    found: list[dict[str, Any]] = []
    for index, object_id in enumerate(objects):
        seen, all_of_it = modal[index], whole[index] | modal[index]
        area = int(all_of_it.sum())
        found.append(
            {
                "track_id": object_id,
                "modal": described_rle(seen),
                "amodal": described_rle(whole[index]),
                "hidden_share": 1 - int(seen.sum()) / area if area else 0.0,
                "occluded_by": [objects[other] for other in occluders[index]],
            }
        )
    present = [objects[index] for index in order if (whole[index] | modal[index]).any()]
    return {"order": present, "objects": found}


def write_one_object(path: Path, lines: FrameLines, names: Sequence[str] | None) -> None:
    """Writes masks.json of one object, as `results.write_masks_json` would."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{\n  "format": "amodal-masks",\n  "version": 1,\n  "frames": [')
        for index, frame in enumerate(lines):
            (one,) = frame["objects"]
            label = {} if names is None else {"name": names[index]}
            text = json_text({"index": index, **label, "modal": one["modal"], "amodal": one["amodal"]})
            file.write(f"{',' * (index > 0)}\n{_indented(text, 4)}")
        file.write("\n  ]\n}\n")


def write_tracks(path: Path, lines: FrameLines, names: Sequence[str], size: tuple[int, int], fps: float | None) -> None:
    """Writes masks.json of several objects in COCO's layout.

    Args:
        names: of the frames' files; of the results', if the frames have none.
        size: (height, width) of the frames.
    """
    height, width = size
    video = {"id": 1, "name": "clip", "width": width, "height": height, "length": len(names)}
    with open(path, "w", encoding="utf-8") as file:
        about = {"description": "Whole and visible masks of objects in a video, by amodal", "version": "1"}
        file.write(
            f'{{"info": {json.dumps(about)},\n"videos": [{json.dumps(video | ({"fps": fps} if fps else {}))}],\n'
        )
        file.write('"categories": [{"id": 1, "name": "object"}],\n"images": [')
        _write_items(file, _images(lines, names, size))
        file.write('],\n"annotations": [')
        _write_items(file, _annotations(lines))
        file.write("]}\n")


def _write_items(file: IO[str], items: Iterator[dict[str, Any]]) -> None:
    for index, item in enumerate(items):
        text = json.dumps(json.loads(json_text(item)), ensure_ascii=False)
        file.write(f"{',' * (index > 0)}\n{text}")


def _images(lines: FrameLines, names: Sequence[str], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    for index, frame in enumerate(lines):
        yield {
            "id": index + 1,
            "video_id": 1,
            "frame_index": index,
            "file_name": names[index],
            "height": size[0],
            "width": size[1],
            "occlusion_order": frame["order"],
        }


def _annotations(lines: FrameLines) -> Iterator[dict[str, Any]]:
    number = 0
    for index, frame in enumerate(lines):
        for one in frame["objects"]:
            whole, seen = one["amodal"], one["modal"]
            if not whole["area"] and not seen["area"]:
                continue
            number += 1
            yield {
                "id": number,
                "image_id": index + 1,
                "video_id": 1,
                "category_id": 1,
                "track_id": one["track_id"],
                "iscrowd": 0,
                "segmentation": {"size": whole["size"], "counts": whole["counts"]},
                "area": whole["area"],
                "bbox": whole["bbox"],
                "visible_mask": {"size": seen["size"], "counts": seen["counts"]},
                "visible_bbox": seen["bbox"],
                "hidden_share": one["hidden_share"],
                "occluded_by": one["occluded_by"],
            }


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
