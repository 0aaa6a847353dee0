"""COCO's average precision of masks, with and without classes, as faster-coco-eval computes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amodal.runtime.errors import InputError

from ..clip import Clip, Prediction
from .rules import Measured, Scores

_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


@dataclass(frozen=True)
class CocoRules:
    """`by_class`, or `class_agnostic`: every object and detection of one class (COCOeval's useCats=0)."""

    kind: str

    @property
    def name(self) -> str:
        """See `Rules`."""
        return self.kind

    @property
    def title(self) -> str:
        """See `Rules`."""
        return "COCO AP of whole masks, " + ("by class" if self.kind == "by_class" else "class-agnostic")

    @property
    def notes(self) -> str:
        """See `Rules`."""
        return "Average precision over IoU .5:.95, 101 recalls, 100 detections per image; -1 where no object counts."

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`: what AP is computed of when all images are known. Both kinds share one copy."""
        if prediction is None:
            return {}
        return {"image": clip.facts["image"], "truth": clip.facts["truth"], "found": prediction.detections}

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`; Top-1 only, because detections have no frames of which the best could be taken."""
        first = [clip.seeds[0] for clip in clips if clip.seeds]
        if not first:
            return {}
        truth = {
            "images": [values["image"] for values in first],
            "annotations": [dict(entry) for values in first for entry in values["truth"]],
            "categories": about["categories"],
        }
        found = [entry for values in first for entry in values["found"]]
        require_found(found, len(first))
        if not truth["annotations"]:
            return {"Top-1": dict.fromkeys(_NAMES, -1.0)}
        evaluator = coco_eval(truth, found, "segm", useCats=int(self.kind == "by_class"))
        return {"Top-1": dict(zip(_NAMES, [float(value) for value in evaluator.stats[:9]], strict=True))}


def coco_eval(truth: dict[str, Any], found: list[dict[str, Any]], kind: str, **params: Any) -> Any:
    """Runs faster-coco-eval, quietly, and returns the evaluator with its `stats` and `eval`.

    Args:
        truth: in COCO's layout. found: detections; they are copied.
        kind: `segm` or `bbox`.
        params: attributes of `COCOeval.params`, and `lvis_style`.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    style = bool(params.pop("lvis_style", False))
    with warnings.catch_warnings():
        # An annotation with the id 0 counts as missed, in COCO's code and in all published figures of such data.
        warnings.filterwarnings("ignore", message="Found annotation id 0")
        known = COCO(truth)
    results = known.loadRes([dict(entry) for entry in found])
    evaluator = COCOeval_faster(known, results, kind, print_function=_quiet, lvis_style=style)
    for name, value in params.items():
        setattr(evaluator.params, name, value)
    evaluator.evaluate()
    evaluator.accumulate()
    if not style:
        evaluator.summarize()
    return evaluator


def require_found(found: list[dict[str, Any]], count: int) -> None:
    """Raises `InputError` if there is no detection at all: the results are then of other images."""
    if not found:
        raise InputError(
            f"the results hold no detection for any of the {count} clips; expected results of this data set.",
            field="results",
        )


def _quiet(*_: Any) -> None:
    pass
