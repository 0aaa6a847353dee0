"""TAO-Amodal's toolkit: AP of boxes in bins of visibility, and AP of tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip import Clip, Prediction
from .detection import coco_eval, require_found
from .rules import Measured, Scores
from .tracks import track_ap

_MOST = 300  # detections per image, and tracks per video
_EVERYTHING = [0.0, 1e10]
_OUTSIDE = 1e11  # an area beyond every range: such truth is ignored, as out of the bin
_BINS = {"HO": (0.0, 0.1), "PO": (0.1, 0.8), "HP": (0.0, 0.8), "HV": (0.8, 1.0)}  # closed at both ends


class ToolkitDetection:
    """AP of boxes of the whole object, by LVIS's federated rules, in the toolkit's bins.

    The bins are evaluated one by one, with truth outside of the bin moved out of the range of areas, which COCO's code
    ignores exactly as the toolkit ignores it.
    """

    name = "detection"
    title = "TAO-Amodal toolkit, detection"
    notes = (
        "Average precision of amodal boxes, IoU .5:.95, 101 recalls, 300 per image; bins of visibility HO [0, .1], "
        "PO [.1, .8], HP [0, .8], HV [.8, 1], OOF out of frame. ARh is HP's, which replaces HO's and HV's under that "
        "name in the toolkit. -1 where no object counts."
    )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        if prediction is None:
            return {}
        return {**{k: clip.facts[k] for k in ("images", "truth", "video")}, "found": prediction.detections}

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`."""
        first = [clip.seeds[0] for clip in clips if clip.seeds]
        if not first:
            return {}
        images = [image for values in first for image in values["images"]]
        truth = [entry for values in first for entry in values["truth"]]
        found = [entry for values in first for entry in values["found"]]
        require_found(found, len(first))
        scores: Scores = {}
        for label in ("", *_BINS, "OOF"):
            kept = [_counts(entry, label) for entry in truth]
            bounded = [
                {**entry, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3] if keep else _OUTSIDE}
                for entry, keep in zip(truth, kept, strict=True)
            ]
            tail = f"-{label}" if label else ""
            scores |= _score(images, bounded, found, about["categories"], tail)
        return {"Top-1": {name: scores[name] for name in _ordered(scores)}}


def _counts(entry: Mapping[str, Any], label: str) -> bool:
    if label == "OOF":
        return bool(entry["out_of_frame"])
    low, high = _BINS.get(label, (0.0, 1.0))
    return bool(low <= entry["visibility"] <= high)


def _score(
    images: list[Any], truth: list[Any], found: list[Any], categories: Sequence[Mapping[str, Any]], tail: str
) -> Scores:
    layout = {"images": images, "annotations": truth, "categories": list(categories)}
    boxes = [{**entry, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in found]
    ranges = {"areaRng": [_EVERYTHING], "areaRngLbl": ["all"], "maxDets": [_MOST]}
    evaluator = coco_eval(layout, boxes, "bbox", lvis_style=True, **ranges)
    precision, recall = evaluator.eval["precision"][..., 0, 0], evaluator.eval["recall"][..., 0, 0]
    thresholds = evaluator.params.iouThrs
    scores: Scores = {f"AP{tail}": _mean(precision), f"AR{tail}": _mean(recall)}
    for limit in (50, 75):
        scores[f"AP{limit}{tail}"] = _mean(precision[np.isclose(thresholds, limit / 100)])
    if not tail:
        order = sorted(category["id"] for category in categories)
        kinds = {category["id"]: category.get("frequency") for category in categories}
        for kind in "rcf":
            chosen = [place for place, number in enumerate(order) if kinds[number] == kind]
            scores[f"AP{kind}"] = _mean(precision[:, :, chosen])
    return scores


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _ordered(scores: Scores) -> list[str]:
    """Renames recalls as the toolkit does; the others keep their order."""
    for letter, label in (("h", "-HP"), ("p", "-PO"), ("o", "-OOF"), ("", "")):
        scores[f"AR{letter}@{_MOST}"] = scores[f"AR{label}"]
    names = [name for name in scores if name.startswith("AP")]
    return names + [f"AR{letter}@{_MOST}" for letter in ("", "h", "p", "o")]


class ToolkitTracking:
    """AP of tracks: `tracks.track_ap` has the definition."""

    name = "tracking"
    title = "TAO-Amodal toolkit, tracking"
    notes = (
        "Average precision of tracks of amodal boxes, IoU over space and time .5:.95, 101 recalls, 300 tracks per "
        "video; HP: tracks with more than five frames of visibility below .8."
    )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`; the same as detection's, which is stored once."""
        return ToolkitDetection().measure(clip, prediction)

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`."""
        first = [clip.seeds[0] for clip in clips if clip.seeds]
        return {"Top-1": dict(track_ap(first, _MOST))} if first else {}
