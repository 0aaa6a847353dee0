"""SAIL-VOS as Diffusion-VAS cut it: clips of 25 frames in `diffusion_vas_sailvos_val.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..clip import Clip, Missing
from ..reading import masks_of, need, pictures, require, stream

ANNOTATIONS = "diffusion_vas_sailvos_val.json"
_IMAGES = "SAILVOS_2D"
_FIELDS = ("segmentation", "visible_mask", "bbox", "image_ids", "obj_id", "category_id", "image_file_names")
_OURS = "huggingface.co/datasets/kaihuac/diffusion_vas_datasets"


@dataclass(frozen=True)
class SailVos:
    """The data set below `root`; images are needed for running a model only.

    A clip's id is `"OBJECT-FIRST IMAGE"`, its keys `"(image_id, obj_id)"`.
    """

    root: Path

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`; the file is streamed, so that memory holds one clip."""
        for number, entry in enumerate(stream(self.annotations()[0], "item")):
            need(entry, _FIELDS, f"clip {number} of {ANNOTATIONS}")
            yield self._clip(entry)

    def _clip(self, entry: dict[str, Any]) -> Clip:
        images, thing = entry["image_ids"], entry["obj_id"]
        name = f"{thing}-{images[0]}"
        files = tuple(self.root / _IMAGES / file for file in entry["image_file_names"])
        height, width = entry["segmentation"][0]["size"]
        return Clip(
            id=name,
            keys=tuple(f"({image}, {thing})" for image in images),
            size=(height, width),
            category=entry["category_id"],
            sources={
                "rgb": partial(pictures, files),
                "modal": partial(masks_of, entry["visible_mask"], f"clip {name}, visible_mask"),
                "amodal": partial(masks_of, entry["segmentation"], f"clip {name}, segmentation"),
                "boxes": lambda: entry["bbox"],
            },
            images=files,
        )

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        found = []
        if not (self.root / ANNOTATIONS).is_file():
            found.append(Missing(ANNOTATIONS, _OURS, "MIT"))
        if not (self.root / _IMAGES).is_dir():
            found.append(Missing(f"{_IMAGES}/", "sailvos.web.illinois.edu", "its own, non-commercial"))
        return found

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [require(self.root, [ANNOTATIONS], "SAIL-VOS")]

    def about(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {}
