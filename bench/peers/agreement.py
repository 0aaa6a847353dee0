"""How far two ways of drawing one clip agree, and how far they must for their times to mean the same work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from amodal.engines.compare import mask_iou, relative_l2
from amodal.engines.verify import MASK_IOU, RESULTS
from amodal.runtime.bundle.manifest import Precision
from amodal.runtime.families.diffusion_vas.config import StageName

from ..reference.same_clip import StageOutput

FRAMES: dict[Precision, float] = {"fp32": 0.5, "fp16": 3.0}
"""Largest mean difference of decoded pictures, of 255. The limits of `verify` on latents and masks say nothing of the
decoder of `complete`; what it draws wrongly, a shifted frame or other colours, differs by ten and more."""


def agreement_of(drawn: Mapping[StageName, StageOutput], expected: Mapping[StageName, StageOutput]) -> dict[str, float]:
    """By measure: `<stage>_latents_relative_l2` of the last step where both have latents, `masks_iou` of all frames
    together, and `<stage>_frames_mean`, the absolute difference of decoded pictures, of 255.

    Raises:
        ValueError: shapes differ.
    """
    found: dict[str, float] = {}
    for stage, theirs in expected.items():
        mine = drawn[stage]
        if mine.latents and theirs.latents:
            found[f"{stage}_latents_relative_l2"] = relative_l2(mine.latents[-1], theirs.latents[-1])
        if mine.masks is not None and theirs.masks is not None:
            found["masks_iou"] = mask_iou(mine.masks, theirs.masks)
        found[f"{stage}_frames_mean"] = float(np.abs(mine.frames.astype(np.int16) - theirs.frames).mean())
    return found


def disagreement(found: Mapping[str, float], halves: int) -> str | None:
    """What of an agreement is beyond its limit, as a clause; None if nothing is.

    Args:
        halves: how many of the two round to half, weights or arithmetic. The limits are those of one beside float32
            (`amodal.engines.verify`), of two that both stray from it, twice those.
    """
    precision: Precision = "fp16" if halves else "fp32"
    times = max(1, halves)
    least = 1 - times * (1 - MASK_IOU[precision])
    wrong = []
    for name, value in found.items():
        if name == "masks_iou":
            if not value >= least:
                wrong.append(f"masks have an IoU of {value:.4f}, less than {least:.4g}")
            continue
        stage, _, measure = name.partition("_")
        limits = RESULTS if measure.startswith("latents") else FRAMES
        limit = times * limits[precision]
        if not value <= limit:
            what = "last latents differ by" if limits is RESULTS else "pictures differ, of 255, by"
            wrong.append(f"{stage}: {what} {value:.2g}, more than {limit:.2g}")
    return "; ".join(wrong) or None
