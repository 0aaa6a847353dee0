"""Runs a bundle on the clips of a data set, as its published protocol prepares them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal.runtime.bundle.reading import find_bundle
from amodal.runtime.errors import InputError
from amodal.runtime.files.rle import encode_rle
from amodal.runtime.pictures.padding import Padding, protocol_boxes

from .catalogue import Entry
from .clip import Bools, Clip, Prediction

_SAIL_VOS = (256, 512)  # at which the authors prepare frames and store masks


def bundle_hash(bundle: Path) -> str:
    """SHA-256 of the manifest, which has the hashes of all files, in hex."""
    path = find_bundle(bundle) / "manifest.json"
    if not path.is_file():
        raise InputError(f"{bundle} holds no manifest.json; expected a bundle.", field="bundle")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_predictor(
    entry: Entry, bundle: Path, settings: Mapping[str, Any], model: Mapping[str, Any]
) -> Callable[[Clip, int], Prediction]:
    """A function from a clip and a seed to a prediction; the bundle is loaded at its first call.

    Raises:
        InputError: the data set scores what no bundle gives. The function raises it for what a SAMEO bundle, which
            takes pictures as they are, cannot do.
    """
    if entry.name == "tao-amodal-toolkit":
        raise InputError(
            "tao-amodal-toolkit scores the boxes of a tracker; run `amodal eval --dataset tao-amodal --bundle`, which "
            "writes them as toolkit.json, and give that for `results`.",
            field="bundle",
        )
    loaded: list[Any] = []

    def predict(clip: Clip, seed: int) -> Prediction:
        if not loaded:
            from amodal.runtime.loading import load

            loaded.append(load(bundle, **model))
        given = _options(loaded[0], entry, clip, settings)
        if entry.name == "sail-vos":
            return _sail_vos(loaded[0], clip, seed, given)
        if entry.padded:
            return _padded(loaded[0], clip, seed, given)
        if "truth" in clip.facts or "stuff" in clip.facts:
            return _objects(loaded[0], clip, seed, given)
        return _stored(clip, _segment(loaded[0], clip.modal(), clip.rgb(), seed, given))

    return predict


def _options(model: Any, entry: Entry, clip: Clip, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `Model.segment` is given beside frames, masks and the seed, which depends on the bundle's family."""
    if _by_picture(model):
        if entry.padded:
            raise InputError(
                f"{entry.name} is scored on padded frames, and a SAMEO bundle takes pictures as they are; give a "
                "Diffusion-VAS bundle.",
                field="bundle",
            )
        if settings:
            raise InputError(f"{', '.join(settings)}: a SAMEO bundle finds masks in one pass; omit it.")
        return {}
    # The evaluation's order of channels is red first; only the demo swaps them.
    given = {"fps": entry.fps, "depth_channels": "rgb", **settings}
    if "depth" in clip.sources and not _computes_depth(model):
        given |= {"depth": clip.depth(), "depth_kind": "metric"}
    return given


def _by_picture(model: Any) -> bool:
    return bool(model.manifest.family == "sameo")


def _computes_depth(model: Any) -> bool:
    return any("depth" in task.components for task in model.manifest.tasks.values())


def _segment(model: Any, modal: Bools, rgb: Any, seed: int, given: Mapping[str, Any]) -> Bools:
    return np.asarray(model.segment(modal, rgb=rgb, seed=seed, **given).masks_full, np.bool_)


def _sail_vos(model: Any, clip: Clip, seed: int, given: Mapping[str, Any]) -> Prediction:
    """Frames and masks at 256x512, resized linearly by cv2 (masks as uint8 0 and 1); stored without the union."""
    side = _SAIL_VOS[::-1]
    frames = np.stack([cv2.resize(np.ascontiguousarray(f), side, interpolation=cv2.INTER_LINEAR) for f in clip.rgb()])
    modal = np.stack([cv2.resize(m.astype(np.uint8), side, interpolation=cv2.INTER_LINEAR) for m in clip.modal()])
    masks = _segment(model, modal > 0, frames, seed, given)
    results = {key: {"diffvas_res_rle": encode_rle(mask)} for key, mask in zip(clip.keys, masks, strict=True)}
    return Prediction(masks=masks, results=results)


def _padded(model: Any, clip: Clip, seed: int, given: Mapping[str, Any]) -> Prediction:
    """The frame padded by a quarter at every side; boxes united with the visible ones, in the frame's pixels."""
    padding, modal = Padding(*clip.size), clip.modal()
    masks = _segment(model, modal, clip.rgb(), seed, {**given, "padding": padding})
    pads = (padding.rows, padding.columns)
    boxes = np.asarray(protocol_boxes(masks, modal, pads))
    seen = np.pad(modal, ((0, 0), (pads[0], pads[0]), (pads[1], pads[1])))
    results = {
        key: {
            "diffvas_res_bbox": [int(n) for n in box],
            "diffvas_res_rle": encode_rle(mask | visible),
            "modal_res_rle": encode_rle(visible),
        }
        for key, box, mask, visible in zip(clip.keys, boxes, masks, seen, strict=True)
    }
    return Prediction(boxes=boxes.astype(np.float64), results=results)


def _objects(model: Any, clip: Clip, seed: int, given: Mapping[str, Any]) -> Prediction:
    """Every object of an image from its true visible mask, so scores are 1: no detector is measured."""
    rgb = clip.rgb()
    modal = clip.modal()
    masks = np.zeros_like(modal)
    if _by_picture(model):
        if modal.any():  # the picture is encoded once for all of its objects
            masks = np.asarray(model.predict_from_masks(rgb[0], modal).masks, np.bool_)
    else:
        for number, seen in enumerate(modal):
            if seen.any():
                masks[number] = _segment(model, seen[None], rgb, seed, given)[0] | seen
    if "truth" not in clip.facts:
        return Prediction(masks=masks, results={clip.id: [encode_rle(mask) for mask in masks]})
    found = [
        {**{key: truth[key] for key in ("image_id", "category_id")}, "segmentation": encode_rle(m), "score": 1.0}
        for truth, m in zip(clip.facts["truth"], masks, strict=True)
    ]
    return Prediction(masks=masks, detections=found)


def _stored(clip: Clip, masks: Bools) -> Prediction:
    return Prediction(masks=masks, results={clip.id: [encode_rle(mask) for mask in masks]})
