"""How closely the outputs of two peers agree, and the limits below which their times are of the same work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from amodal.engines.compare import mask_iou, relative_l2
from amodal.engines.verify import MASK_IOU, RESULTS
from amodal.runtime.bundle.manifest import Precision

from ..reference.same_clip import Outputs

FRAMES: dict[Precision, float] = {"fp32": 0.5, "fp16": 3.0}
"""Largest mean difference of decoded pictures, of 255. The limits of `verify` on latents and masks do not cover the
decoder of `complete`; its errors, such as a shifted frame or other colours, differ by ten and more."""


def agreement_of(outputs: Outputs, expected: Outputs) -> dict[str, float]:
    """Compares two outputs.

    Returns:
        `STAGE_latents_relative_l2` of the last step, if both have latents; `masks_iou` of all frames together; and
        `STAGE_frames_mean`, the mean absolute difference of decoded pictures, of 255.

    Raises:
        ValueError: shapes differ.
    """
    found: dict[str, float] = {}
    for stage, theirs in expected.items():
        ours = outputs[stage]
        if ours.latents and theirs.latents:
            found[f"{stage}_latents_relative_l2"] = relative_l2(ours.latents[-1], theirs.latents[-1])
        if ours.masks is not None and theirs.masks is not None:
            found["masks_iou"] = mask_iou(ours.masks, theirs.masks)
        found[f"{stage}_frames_mean"] = float(np.abs(ours.frames.astype(np.int16) - theirs.frames).mean())
    return found


def disagreement(agreement: Mapping[str, float], halves: int) -> str | None:
    """Describes the measures of an agreement that exceed their limits; None if there are none.

    Args:
        halves: how many of the two peers round to half precision, weights or arithmetic. With one, the limits are those
            of `amodal.engines.verify` for half precision against float32; with two, twice those.
    """
    precision: Precision = "fp16" if halves else "fp32"
    times = max(1, halves)
    least_iou = 1 - times * (1 - MASK_IOU[precision])
    wrong = []
    for name, value in agreement.items():
        if name == "masks_iou":
            if not value >= least_iou:
                wrong.append(f"masks have an IoU of {value:.4f}, less than {least_iou:.4g}")
            continue
        stage, _, measure = name.partition("_")
        limits = RESULTS if measure.startswith("latents") else FRAMES
        limit = times * limits[precision]
        if not value <= limit:
            what = "last latents differ by" if limits is RESULTS else "pictures differ, of 255, by"
            wrong.append(f"{stage}: {what} {value:.2g}, more than {limit:.2g}")
    return "; ".join(wrong) or None
