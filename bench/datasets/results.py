"""Predictions in the authors' results files, clip by clip.

Each function takes the files of one seed and returns a function from a clip to its `Prediction`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.errors import InputError
from amodal.runtime.paths import natural_key

from .clip import Clip, Prediction
from .reading import masks_of, planes, stream

Predict = Callable[[Clip], Prediction]


def keyed(path: Path) -> dict[str, Any]:
    """A results file of Diffusion-VAS: entries by frame; a key that comes twice is refused."""
    entries: dict[str, Any] = {}
    for key, value in stream(path, "", pairs=True):
        if key in entries:
            raise InputError(f"{path} holds {key} twice; expected every frame once.", field="results")
        entries[key] = value
    return entries


def sail_vos(path: Path) -> Predict:
    """`diffvas_res_rle` by `"(image_id, obj_id)"`, stored without the union with the visible mask."""
    entries = keyed(path)

    def predict(clip: Clip) -> Prediction:
        own = _of_clip(entries, clip, path, ("diffvas_res_rle",))
        masks = masks_of([entry["diffvas_res_rle"] for entry in own.values()], f"{path}, clip {clip.id}")
        return Prediction(masks=masks, results=own)

    return predict


def tao(path: Path) -> Predict:
    """`diffvas_res_bbox` by `"(video, 'file', 'track')"`, united with the visible box, in the frame's pixels."""
    entries = keyed(path)

    def predict(clip: Clip) -> Prediction:
        own = _of_clip(entries, clip, path, ("diffvas_res_bbox",))
        boxes = np.asarray([entry["diffvas_res_bbox"] for entry in own.values()], np.float64)
        if boxes.shape != (len(clip.keys), 4) or not np.isfinite(boxes).all():
            raise InputError(f"{path}, clip {clip.id}: boxes are not four finite numbers each.", field="results")
        return Prediction(boxes=boxes, results=own)

    return predict


def detections(path: Path) -> Predict:
    """COCO's or the toolkit's list of detections."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for number, entry in enumerate(stream(path, "item")):
        lacking = {"image_id", "category_id", "score"} - set(entry)
        if lacking:
            raise InputError(f"{path}: detection {number} has no {', '.join(sorted(lacking))}.", field="results")
        score = entry["score"]
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{path}: detection {number} has the score {score}; expected a number.", field="results")
        groups[entry["image_id"]].append(entry)
    used: set[Any] = set()

    def predict(clip: Clip) -> Prediction:
        images = [image["id"] for image in clip.facts.get("images", [clip.facts.get("image")])]
        used.update(images)
        found = [entry for image in images for entry in groups.get(image, [])]
        return Prediction(detections=found)

    return predict


def regions(path: Path) -> Predict:
    """Whole masks of COCOA's regions: lists of RLE by image id."""
    entries = keyed(path)

    def predict(clip: Clip) -> Prediction:
        if clip.id not in entries:
            raise _no_results(path, clip)
        masks = masks_of(entries[clip.id], f"{path}, image {clip.id}")
        return Prediction(masks=_fitting(masks, clip, path), results={clip.id: entries[clip.id]})

    return predict


def movi(folder: Path) -> Predict:
    """A file `SCENE-OBJECT.json` per object with an RLE per frame."""

    def predict(clip: Clip) -> Prediction:
        path = folder / f"{clip.id}.json"
        if not path.is_file():
            raise _no_results(folder, clip)
        rles = list(stream(path, "item"))
        return Prediction(masks=_fitting(masks_of(rles, str(path)), clip, path), results={clip.id: rles})

    return predict


def tabe_runs(folder: Path) -> list[Predict]:
    """TABE's outputs: `VIDEO/final_outputs/RUN/masks/*.png` below the folder, a function per run."""
    videos = sorted(path for path in folder.rglob("final_outputs") if path.is_dir())
    if not videos:
        raise InputError(f"{folder} holds no VIDEO/final_outputs; expected the outputs of TABE.", field="results")
    places = {path.parent.name: path for path in videos}
    runs = sorted({run.name for path in videos for run in path.iterdir() if run.is_dir()}, key=natural_key)

    def reader(run: str) -> Predict:
        def predict(clip: Clip) -> Prediction:
            if clip.id not in places:
                raise _no_results(folder, clip)
            masks_at = places[clip.id] / run / "masks"
            files = sorted(masks_at.glob("*.png"), key=lambda file: natural_key(file.name))
            if not files:
                raise InputError(f"{masks_at} holds no masks; expected one per frame.", field="results")
            values = planes(files)
            return Prediction(masks=_fitting(np.asarray(values > 0, np.bool_), clip, masks_at))

        return predict

    return [reader(run) for run in runs]


def _of_clip(entries: Mapping[str, Any], clip: Clip, path: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    found = {key: entries[key] for key in clip.keys if key in entries}
    if len(found) < len(clip.keys):
        lost = next(key for key in clip.keys if key not in entries)
        raise InputError(
            f"{path} holds {len(found)} of the {len(clip.keys)} frames of clip {clip.id}, not {lost}; expected results "
            "for every frame of this data set.",
            field="results",
        )
    for key, entry in found.items():
        if not isinstance(entry, dict) or any(name not in entry for name in fields):
            raise InputError(f"{path}: {key} has no {' or '.join(fields)}.", field="results")
    return found


def _fitting(masks: Any, clip: Clip, path: Path) -> Any:
    if masks.shape != (len(clip.keys), *clip.size):
        raise InputError(
            f"{path}: the masks of {clip.id} have the shape {list(masks.shape)}; expected "
            f"{[len(clip.keys), *clip.size]}.",
            field="results",
        )
    return masks


def _no_results(path: Path, clip: Clip) -> InputError:
    return InputError(f"{path} holds nothing for {clip.id}; expected results for every clip.", field="results")
