"""TABE's figures: means of means of videos, over several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..clip import Bools, Clip, Floats, Prediction
from .diffusion_vas import _masks
from .rules import Measured, Scores, Values, column, listed, mean

_FREE = "NO_OCCLUSION"
MEASURES = ("mIOU", "mIOUffo", "mIOUfo", "mIOUocc")


class TabeRules:
    """Whole masks over all frames, those where nothing is visible, and those with any occlusion; hidden parts."""

    name = "tabe"
    title = "TABE on TABE-51"
    notes = (
        "Means of the videos' means; mIOUffo is over frames where nothing is visible, mIOUfo and mIOUocc over frames "
        "with any occlusion. Hidden parts are (prediction xor visible) and (whole xor visible), as in the authors' "
        "code: a pixel that is visible but not predicted counts as hidden on both sides. std is of the sample of runs "
        "(n - 1)."
    )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        amodal, modal = clip.amodal(), clip.modal()
        guess = modal if prediction is None else _masks(prediction, clip)
        whole = _iou(guess, amodal)
        hidden = _iou(guess ^ modal, amodal ^ modal)
        occluded = np.asarray([level != _FREE for level in clip.facts["levels"]])
        gone = ~modal.any(axis=(1, 2))
        return {
            "mIOU": listed(whole),
            "mIOUffo": listed(np.where(gone, whole, np.nan)),
            "mIOUfo": listed(np.where(occluded, whole, np.nan)),
            "mIOUocc": listed(np.where(occluded, hidden, np.nan)),
        }

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`; a row per run (`gen: 0` and so on), their `mean` and `std`."""
        rows = {"Modal": _run([clip.modal for clip in clips])} if clips and clips[0].modal else {}
        count = min((len(clip.seeds) for clip in clips), default=0)
        runs = {f"gen: {n}": _run([clip.seeds[n] for clip in clips]) for n in range(count)}
        rows |= runs
        if runs:
            tables = {name: np.asarray([run[name] for run in runs.values()], np.float64) for name in MEASURES}
            rows["mean"] = {name: mean(values) for name, values in tables.items()}
            rows["std"] = {name: _spread(values) for name, values in tables.items()}
        return rows


def video(values: Values) -> Scores:
    """The figures of one video in one run."""
    return {name: mean(column([values], name)) for name in MEASURES}


def _run(values: Sequence[Values]) -> Scores:
    videos = [video(each) for each in values]
    return {name: mean(np.asarray([each[name] for each in videos], np.float64)) for name in MEASURES}


def _spread(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1)) if known.size > 1 else None


def _iou(a: Bools, b: Bools) -> Floats:
    shared, union = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0.0), np.float64)
