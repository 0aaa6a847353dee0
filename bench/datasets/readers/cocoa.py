"""COCOA in its own layout: images with regions, each one polygon of the whole object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.pictures.padding import mask_boxes

from ..clip import Bools, Clip, Missing
from ..reading import mask_of, need, pictures, require, stream

_NAMES = ("annotations/COCO_amodal_val2014.json", "COCO_amodal_val2014.json")
_WHERE = "github.com/Wakeupbuddy/amodalAPI"
_FIELDS = ("image_id", "regions", "depth_constraint")


@dataclass(frozen=True)
class Cocoa:
    """The validation set. A clip is an image with N regions, its id the image's, its keys the regions' numbers.

    Facts: `stuff`, bool per region, `names`, and `hides`, pairs of numbers of which the first hides the second.
    """

    root: Path

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`."""
        path = self.annotations()[0]
        images = {image["id"]: image for image in stream(path, "images.item")}
        for number, entry in enumerate(stream(path, "annotations.item")):
            need(entry, _FIELDS, f"annotation {number} of {path.name}")
            image = images.get(entry["image_id"])
            need(image, ("file_name", "height", "width"), f"image {entry['image_id']} of {path.name}")
            assert image is not None
            yield self._clip(entry, image)

    def _clip(self, entry: dict[str, Any], image: dict[str, Any]) -> Clip:
        size, name = (image["height"], image["width"]), str(entry["image_id"])
        regions = entry["regions"]
        for number, region in enumerate(regions):
            need(region, ("segmentation", "isStuff"), f"image {name}, region {number}")
        file = self.root / "val2014" / image["file_name"]
        whole = partial(_whole, regions, size, f"image {name}")
        pairs = [pair.split("-") for pair in entry["depth_constraint"].split(",") if pair]
        return Clip(
            id=name,
            keys=tuple(str(number) for number in range(len(regions))),
            size=size,
            sources={
                "rgb": partial(pictures, [file]),
                "amodal": whole,
                "modal": partial(_visible, regions, size, f"image {name}"),
                "boxes": lambda: mask_boxes(whole()),
            },
            facts={
                "stuff": [bool(region["isStuff"]) for region in regions],
                "names": [region.get("name", "") for region in regions],
                "hides": [(int(first) - 1, int(second) - 1) for first, second in pairs],
            },
            images=(file,),
        )

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        there = any((self.root / name).is_file() for name in _NAMES)
        found = [] if there else [Missing(_NAMES[0], _WHERE, "none is stated")]
        if not (self.root / "val2014").is_dir():
            found.append(Missing("val2014/", "cocodataset.org (2014 val images)", "of the images' owners, Flickr"))
        return found

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [require(self.root, _NAMES, "COCOA")]

    def about(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {}


def _whole(regions: list[dict[str, Any]], size: tuple[int, int], where: str) -> Bools:
    return np.stack([mask_of(region["segmentation"], size, where) for region in regions])


def _visible(regions: list[dict[str, Any]], size: tuple[int, int], where: str) -> Bools:
    # Regions of which nothing is hidden have no visible mask of their own.
    return np.stack([mask_of(r.get("visible_mask", r["segmentation"]), size, where) for r in regions])
