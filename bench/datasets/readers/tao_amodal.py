"""TAO-Amodal: Diffusion-VAS's clips of 25 frames, and the videos that the toolkit scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..clip import Clip, Missing
from ..reading import masks_of, need, pictures, require, stream

CLIPS = "diffusion_vas_tao_amodal_val.json"
_FIRST = "tao_amodal_track_ids_abs2rel_val.json"
_TOOLKIT = ("amodal_annotations/validation_lvis_v1.json", "validation_lvis_v1.json")
_OURS = "huggingface.co/datasets/kaihuac/diffusion_vas_datasets"
_THEIRS = "huggingface.co/datasets/chengyenhsieh/TAO-Amodal"
_FIELDS = ("track_id", "category_id", "video_id", "file_names", "rles", "height", "width", "amodal_bboxes")
_FRAMES = Missing("frames/", f"{_THEIRS} (AVA and HACS on request)", "of the videos' owners")


@dataclass(frozen=True)
class TaoAmodal:
    """Diffusion-VAS's clips. A clip's id is its track's; its keys are `"(video, 'file', 'track in the video')"`."""

    root: Path

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`."""
        path, first_path = self.annotations()
        first = dict(stream(first_path, "", pairs=True))
        for number, entry in enumerate(stream(path, "item")):
            need(entry, _FIELDS, f"clip {number} of {CLIPS}")
            need(first, [str(entry["video_id"])], _FIRST)
            yield self._clip(entry, entry["track_id"] - first[str(entry["video_id"])] + 1)

    def _clip(self, entry: dict[str, Any], relative: int) -> Clip:
        size = (entry["height"], entry["width"])
        rles = [{"size": list(size), "counts": counts} for counts in entry["rles"]]
        names = [PurePosixPath(file).name for file in entry["file_names"]]
        files = tuple(self.root / "frames" / file for file in entry["file_names"])
        name = f"{entry['video_id']}-{entry['track_id']}-{PurePosixPath(names[0]).stem}"
        return Clip(
            id=name,
            keys=tuple(str((entry["video_id"], file, str(relative))) for file in names),
            size=size,
            category=entry["category_id"],
            sources={
                "rgb": partial(pictures, files),
                "modal": partial(masks_of, rles, f"clip {name}, rles"),
                # The authors hold them in float32.
                "boxes": lambda: np.asarray(entry["amodal_bboxes"], np.float32).astype(np.float64),
            },
            facts={"video": entry["video_id"], "track": entry["track_id"], "files": entry["file_names"]},
            images=files,
        )

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        found = [Missing(name, _OURS, "MIT") for name in (CLIPS, _FIRST) if not (self.root / name).is_file()]
        return found + [_FRAMES] * (not (self.root / "frames").is_dir())

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [require(self.root, [name], "TAO-Amodal") for name in (CLIPS, _FIRST)]

    def about(self) -> dict[str, Any]:
        """See `Dataset`: by key, what the toolkit's results say of a box, if its annotations are there."""
        found = [self.root / place for place in _TOOLKIT if (self.root / place).is_file()]
        ids = {image["file_name"]: image["id"] for image in stream(found[0], "images.item")} if found else {}
        return {
            "images": {
                key: {
                    "image_id": ids[file],
                    "category_id": clip.category,
                    "track_id": clip.facts["track"],
                    "video_id": clip.facts["video"],
                }
                for clip in (self.clips() if ids else ())
                for key, file in zip(clip.keys, clip.facts["files"], strict=True)
                if file in ids
            }
        }


_IMAGE = ("id", "video_id", "neg_category_ids", "not_exhaustive_category_ids", "width", "height")
_TRUTH = ("id", "image_id", "track_id", "category_id", "video_id", "bbox", "area", "visibility", "out_of_frame")


@dataclass(frozen=True)
class TaoVideos:
    """The videos of the toolkit's annotations, in which `bbox` is the whole object's.

    A clip is a video, its keys image ids. Facts: `images` and `truth`, trimmed to what is scored, and `video`.
    """

    root: Path

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`; what is scored of the annotations is held in memory, about a sixth of the file."""
        path = self.annotations()[0]
        images, truth = defaultdict(list), defaultdict(list)
        files: dict[int, str] = {}
        for image in stream(path, "images.item"):
            need(image, _IMAGE, f"an image of {path.name}")
            images[image["video_id"]].append({name: image[name] for name in _IMAGE})
            files[image["id"]] = image["file_name"]
        for entry in stream(path, "annotations.item"):
            need(entry, _TRUTH, f"annotation {entry.get('id')} of {path.name}")
            truth[entry["video_id"]].append({name: entry[name] for name in _TRUTH})
        for video in stream(path, "videos.item"):
            own = images[video["id"]]
            yield Clip(
                id=str(video["id"]),
                keys=tuple(str(image["id"]) for image in own),
                size=(video["height"], video["width"]),
                sources={"rgb": partial(pictures, [self.root / "frames" / files[image["id"]] for image in own])},
                facts={
                    "images": own,
                    "truth": truth[video["id"]],
                    "video": {k: video[k] for k in ("id", "neg_category_ids", "not_exhaustive_category_ids")},
                },
                images=tuple(self.root / "frames" / files[image["id"]] for image in own),
            )

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        there = any((self.root / place).is_file() for place in _TOOLKIT)
        found = [] if there else [Missing(_TOOLKIT[0], _THEIRS, "MIT")]
        return found + [_FRAMES] * (not (self.root / "frames").is_dir())

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [require(self.root, _TOOLKIT, "TAO-Amodal")]

    def about(self) -> dict[str, Any]:
        """See `Dataset`: the categories with their frequency in training images (r, c, f)."""
        kept = ("id", "name", "frequency")
        return {"categories": [{k: c[k] for k in kept} for c in stream(self.annotations()[0], "categories.item")]}
