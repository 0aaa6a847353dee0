"""Data sets in COCO's layout: COCOA-cls, D2SA, and KINS in its first release and that of 2020.

They differ in names of files and fields, which `Layout` has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..clip import Bools, Clip, Missing
from ..reading import mask_of, need, pictures, require, stream


@dataclass(frozen=True)
class Layout:
    """Where a data set has what.

    Attributes:
        title: of the data set.
        files: places of the annotations, the usual one first.
        images: folder of the images.
        whole, box, area: fields of an annotation for the whole object.
        visible: field of what is visible; an annotation without it is visible as a whole.
        missing: where users get annotations and images.
    """

    title: str
    files: tuple[str, ...]
    images: str
    whole: str = "segmentation"
    box: str = "bbox"
    area: str = "area"
    visible: str = "visible_mask"
    missing: tuple[Missing, ...] = ()


COCOA_CLS = Layout(
    "COCOA-cls",
    ("annotations/COCO_amodal_val2014_with_classes.json", "COCO_amodal_val2014_with_classes.json"),
    "val2014",
    missing=(
        Missing("COCO_amodal_val2014_with_classes.json", "github.com/YihongSun/Bayesian-Amodal", "none is stated"),
        Missing("val2014/", "cocodataset.org (2014 val images)", "of the images' owners, Flickr"),
    ),
)
D2SA = Layout(
    "D2SA",
    ("d2s_amodal_annotations_v1/D2S_amodal_validation.json", "D2S_amodal_validation.json"),
    "d2s_amodal_images_v1/images",
    missing=(
        Missing("d2s_amodal_annotations_v1/", "mvtec.com", "see MVTec's page"),
        Missing("d2s_amodal_images_v1/images/", "mvtec.com", "see MVTec's page"),
    ),
)
_KINS = "github.com/qqlu/Amodal-Instance-Segmentation-through-KINS-Dataset"
_KITTI = Missing("testing/image_2/", "cvlibs.net (KITTI object, left images)", "CC BY-NC-SA 3.0")
KINS = Layout(
    "KINS",
    ("annotations/instances_val.json", "instances_val.json"),
    "testing/image_2",
    visible="inmodal_seg",
    missing=(
        Missing("instances_val.json", _KINS, "none is stated"),
        _KITTI,
    ),
)
KINS_2020 = Layout(
    "KINS of 2020",
    ("annotations/update_test_2020.json", "update_test_2020.json"),
    "testing/image_2",
    whole="a_segm",
    box="a_bbox",
    area="a_area",
    visible="i_segm",
    missing=(
        Missing(
            "update_test_2020.json",
            _KINS,
            "none is stated",
        ),
        _KITTI,
    ),
)


@dataclass(frozen=True)
class CocoLayout:
    """A data set below `root`. A clip is an image with N objects, its id the image's, its keys the annotations' ids.

    Facts: `image` (id, height, width) and `truth`: annotations trimmed to what COCO's AP needs, of whole objects.
    """

    root: Path
    layout: Layout

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`; annotations are grouped by image, so those that are scored are in memory."""
        path, layout = self.annotations()[0], self.layout
        groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        needed = ("id", "image_id", "category_id", layout.whole, layout.box, layout.area)
        for entry in stream(path, "annotations.item"):
            need(entry, needed, f"annotation {entry.get('id')} of {path.name}")
            groups[entry["image_id"]].append(entry)
        for image in stream(path, "images.item"):
            need(image, ("id", "file_name", "height", "width"), f"image {image.get('id')} of {path.name}")
            yield self._clip(image, groups.get(image["id"], []))

    def _clip(self, image: dict[str, Any], entries: list[dict[str, Any]]) -> Clip:
        size, name, layout = (image["height"], image["width"]), str(image["id"]), self.layout
        file = self.root / layout.images / image["file_name"]
        visible = [entry.get(layout.visible, entry[layout.whole]) for entry in entries]
        return Clip(
            id=name,
            keys=tuple(str(entry["id"]) for entry in entries),
            size=size,
            sources={
                "rgb": partial(pictures, [file]),
                "amodal": partial(_masks, [entry[layout.whole] for entry in entries], size, f"image {name}"),
                "modal": partial(_masks, visible, size, f"image {name}"),
                "boxes": lambda: np.reshape([entry[layout.box] for entry in entries], (-1, 4)),
            },
            facts={
                "image": {key: image[key] for key in ("id", "height", "width")},
                "truth": [self._scored(entry) for entry in entries],
            },
            images=(file,),
        )

    def _scored(self, entry: dict[str, Any]) -> dict[str, Any]:
        kept = {key: entry[key] for key in ("id", "image_id", "category_id")}
        layout = self.layout
        return kept | {
            "segmentation": entry[layout.whole],
            "bbox": entry[layout.box],
            "area": entry[layout.area],
            "iscrowd": int(entry.get("iscrowd", 0)),  # D2SA has bools
        }

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        annotations, images = self.layout.missing
        there = any((self.root / file).is_file() for file in self.layout.files)
        return [annotations] * (not there) + [images] * (not (self.root / self.layout.images).is_dir())

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [require(self.root, self.layout.files, self.layout.title)]

    def about(self) -> dict[str, Any]:
        """See `Dataset`: the categories."""
        path = self.annotations()[0]
        return {"categories": [{k: c[k] for k in ("id", "name")} for c in stream(path, "categories.item")]}


def _masks(segmentations: list[Any], size: tuple[int, int], where: str) -> Bools:
    if not segmentations:
        return np.zeros((0, *size), np.bool_)
    return np.stack([mask_of(segmentation, size, where) for segmentation in segmentations])
