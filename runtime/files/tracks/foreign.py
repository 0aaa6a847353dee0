"""Formats that are recognised and not read, each by marks of its own, so that they can be refused by name."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError

_NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+(e-?[0-9]+)?")
_COCO = "export COCO annotations with a track_id"
_GROUNDED = "give the folder mask_data beside it, which holds the masks as id maps"


def refuse_foreign_json(path: Path, document: Any) -> None:
    """Raises `InputError` if json is in a known format that is not read."""
    found = _foreign_json(document)
    if found:
        raise InputError(f"{path} is {found[0]}, which is not read; {found[1]}.")


def refuse_foreign_xml(path: Path, root: ET.Element) -> None:
    """Raises `InputError` if XML is in a known format that is not read."""
    if root.tag == "annotation" and root.find("object") is not None:
        raise InputError(f"{path} is Pascal VOC's XML, which holds boxes, not masks; {_COCO}.")


def refuse_foreign_text(path: Path, text: str) -> None:
    """Raises `InputError` if a text is in a known format that is not read."""
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    if not rows or not all(len(row) >= 5 and all(map(_NUMBER.fullmatch, row)) for row in rows):
        return
    if "," in text and all(len(row) in (7, 8, 9, 10) for row in rows):
        raise InputError(
            f"{path} is a text file of MOTChallenge, which holds boxes, not masks; give the masks of MOTS."
        )
    if all(0 <= float(value) <= 1 for row in rows for value in row[1:5]):
        raise InputError(f"{path} is a label file of YOLO, which holds no ids of objects over frames; {_COCO}.")


def _foreign_json(document: Any) -> tuple[str, str] | None:
    """Returns what json is and what to give instead; None if it is not known."""
    items = _items(document)
    first = items[0] if items else {}
    held = document if isinstance(document, dict) else first
    if {"mask_name", "labels"} <= set(held):
        return "the json_data of Grounded-SAM-2, which has boxes and labels", _GROUNDED
    if "_via_img_metadata" in held or "_via_settings" in held or {"filename", "regions"} <= set(first):
        return "a project of VGG Image Annotator (VIA)", _COCO
    if "classTitle" in _text_keys(held.get("objects")) or {"figures", "index"} & _text_keys(held.get("frames")) == {
        "figures",
        "index",
    }:
        return "an annotation of Supervisely", _COCO
    if {"imgHeight", "imgWidth", "objects"} <= set(held):
        return "an annotation of Cityscapes", "give its instanceIds pictures"
    if "regions" in _text_keys(held.get("annotations")):
        return "an annotation of COCOA, which has no ids of objects over frames", _COCO
    if {"segmentation", "visible_mask", "image_file_names"} <= set(first):
        return "a list of samples of SAIL-VOS", "write one sample as COCO annotations with `segmentation` per frame"
    if isinstance(held.get("image"), dict) and {"point_coords", "predicted_iou"} & _text_keys(held.get("annotations")):
        return "an annotation of SA-1B, whose ids do not hold over frames", _COCO
    if "item" in held and "annotations" in held and "version" in held:
        return "an annotation of V7 Darwin", _COCO
    if any({"brushlabels", "polygonlabels"} & _text_keys(value) for value in first.values()):
        return "Label Studio's JSON-MIN, which leaves out what the labels belong to", "export JSON"
    if {"data_row", "projects"} <= set(first):
        return "an export of Labelbox", _COCO
    if isinstance(held.get("panoptic"), dict) or {"segments_info"} & _text_keys(held.get("annotations")):
        return "a COCO panoptic file, whose masks are in pictures", "give the folder of these pictures"
    return None


def _items(document: Any) -> list[dict[str, Any]]:
    values = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return [value for value in values if isinstance(value, dict)][:1]


def _text_keys(entries: Any) -> set[str]:
    """Returns the keys of the first object in a list."""
    first = entries[0] if isinstance(entries, Sequence) and entries else None
    return set(first) if isinstance(first, dict) else set()
