"""Diffusion-VAS's protocols on SAIL-VOS and TAO-Amodal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.padding import mask_boxes

from ...quality.measures import box_iou, iou, official_ious
from ..clip import Clip, Prediction
from .rules import Measured, Scores, by_row, column, listed, mean


class SailVosRules:
    """Masks of any size come to 800x1280 and are united with what is visible; `official_ious` has the formulas."""

    name = "diffusion-vas"
    title = "Diffusion-VAS on SAIL-VOS (CVPR 2025)"
    notes = (
        "miou and miou_occ are means over frames at 800x1280; miou_occ leaves out frames with a hidden IoU below 1e-6, "
        "so a miss of the whole hidden part is not counted. Top-K takes each frame's best value, measure by measure."
    )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        amodal, modal = clip.amodal(), clip.modal()
        guess = modal if prediction is None else _masks(prediction, clip)
        whole, hidden = official_ious(guess, amodal, modal)
        values: dict[str, Any] = {"iou": listed(whole), "occ": listed(hidden)}
        return values | ({"visibility": float(iou(modal, amodal).mean())} if prediction is None else {})

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`."""
        rows: dict[str, Scores] = {}
        for name, values in by_row(clips).items():
            occ = column(values, "occ")
            rows[name] = {"miou": mean(column(values, "iou")), "frames": len(occ)}
            if name != "Modal":
                rows[name] |= {"miou_occ": mean(occ), "frames_occ": int((~np.isnan(occ)).sum())}
        return rows


class TaoRules:
    """Boxes of the whole object, also beyond the frame, against the true ones, which the authors hold in float32."""

    name = "diffusion-vas"
    title = "Diffusion-VAS on TAO-Amodal (CVPR 2025)"
    notes = (
        "ap25, ap50 and ap75 are shares of frames whose box IoU exceeds .25, .5 and .75 (no average precision); boxes "
        "are x, y, width, height in the frame's pixels, without the padding. True boxes are float32, as the authors' "
        "are. Top-K takes each frame's best value."
    )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        true = clip.boxes()
        if prediction is None:
            values = box_iou(mask_boxes(clip.modal()).astype(np.float64), true)
            return {"iou": listed(values), "visibility": float(np.nanmean(values))}
        if prediction.boxes is None:
            raise InputError(f"{clip.id}: the predictions hold no boxes; TAO-Amodal's rules score boxes.")
        return {"iou": listed(box_iou(prediction.boxes, true))}

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`."""
        rows: dict[str, Scores] = {}
        for name, values in by_row(clips).items():
            ious = column(values, "iou")
            shares = {f"ap{limit}": float((ious > limit / 100).mean()) for limit in (25, 50, 75)}
            rows[name] = {"miou": mean(ious), **shares, "frames": len(ious)}
        return rows


def _masks(prediction: Prediction, clip: Clip) -> Any:
    if prediction.masks is None:
        raise InputError(f"{clip.id}: the predictions hold no masks, which these rules score.")
    return prediction.masks
