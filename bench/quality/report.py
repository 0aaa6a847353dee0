"""From clips to one report: every measure for the baselines and the prediction, as means over all frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.padding import mask_boxes, protocol_boxes

from . import measures
from .clips import Bools, ClipPrediction, ClipTruth, Floats, at_frame_size, check_pair, in_frame

Mode = Literal["official", "strict", "both"]
Frames = dict[str, Floats]
"""A measure's value in every frame, by the measure's name; NaN where it says nothing."""

_THRESHOLDS = {"ap25": 0.25, "ap50": 0.5, "ap75": 0.75}
_ORDER = ("modal", "convex", "mean colour", "Top-1")  # and Top-K last
_OPTIONAL = {"mean colour"}  # clips without RGB have none


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MaskScores(_Record):
    """mIoU in one mode.

    Attributes:
        miou: mean IoU over `frames` frames, in [0, 1].
        miou_occ: mean IoU of the hidden parts over `frames_occ` frames, in [0, 1]; None if no frame counts.
    """

    miou: float = Field(ge=0, le=1)
    miou_occ: float | None = Field(ge=0, le=1)
    frames: int
    frames_occ: int


class Row(_Record):
    """All measures of one prediction or baseline; None where one was not asked for or has nothing to measure.

    Attributes:
        name: `modal`, `convex`, `mean colour`, `Top-1`, or `Top-K` for the best of K samples in each frame.
        official: as published, see `measures.official_ious`.
        strict: see `measures.iou` and `measures.hidden_iou`.
        ap25, ap50, ap75: share of the frames whose box IoU exceeds 0.25, 0.5 and 0.75, as published for TAO-Amodal.
        flicker: mean over pairs of frames, in [0, 1], lower is better; not for `Top-K`, which is no video.
        psnr: dB inside the hidden region, mean over the frames that have one.
    """

    name: str
    official: MaskScores | None = None
    strict: MaskScores | None = None
    ap25: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    flicker: float | None = None
    psnr: float | None = None


class ClipScores(_Record):
    """The rows of one clip, its frames, and how many of them have hidden pixels in the truth."""

    name: str
    frames: int
    hidden_frames: int
    rows: list[Row]


class Report(_Record):
    """Quality over all frames of all clips, and clip by clip."""

    schema_version: int = 1
    mode: Mode
    frames: int
    hidden_frames: int
    rows: list[Row]
    clips: list[ClipScores]

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            KeyError: there is none.
        """
        found = {row.name: row for row in self.rows}
        return found[name]


def evaluate(pairs: Iterable[tuple[ClipTruth, ClipPrediction]], mode: Mode = "both") -> Report:
    """Measure predictions against the truth, beside the baselines `modal`, `convex` and `mean colour`.

    Means are over the frames of all clips, as in Diffusion-VAS section 4.1, not over clips. `Top-K` takes, for each
    measure by itself, the best of the K samples in each frame.

    Boxes are compared by the padded-frame protocol: predicted masks of the padded frame's size give boxes that may
    reach out of the frame; those of the frame's size are cut at its border, while the true boxes are not.

    Args:
        pairs: truth and prediction of every clip; drawn one at a time, so a generator keeps memory low.
        mode: which mIoU: `official`, `strict` or both.

    Raises:
        InputError: no pair, numbers of frames, sizes or samples that differ, or an unknown mode.
    """
    if mode not in ("official", "strict", "both"):
        raise InputError(f"mode is {mode!r}; use 'official', 'strict' or 'both'.")
    clips: list[ClipScores] = []
    collected: dict[str, list[Frames]] = {}
    for truth, prediction in pairs:
        measured = measure_clip(truth, prediction, mode)
        if clips and set(measured) - _OPTIONAL != set(collected) - _OPTIONAL:
            raise InputError(
                f"{truth.name} has {len(prediction.samples)} samples, but {clips[0].name} another number; "
                "give all clips the same, or measure fewer (`top_k`)."
            )
        for name, frames in measured.items():
            collected.setdefault(name, []).append(frames)
        rows = [_row(name, [frames]) for name, frames in measured.items()]
        hidden = int(truth.hidden.any(axis=(1, 2)).sum())
        clips.append(ClipScores(name=truth.name, frames=len(truth.amodal), hidden_frames=hidden, rows=rows))
    if not clips:
        raise InputError("there is no clip to measure; give one prediction and its truth at least.")
    return Report(
        mode=mode,
        frames=sum(clip.frames for clip in clips),
        hidden_frames=sum(clip.hidden_frames for clip in clips),
        rows=[_row(name, collected[name]) for name in [*filter(collected.get, _ORDER), *(set(collected) - {*_ORDER})]],
        clips=clips,
    )


def measure_clip(truth: ClipTruth, prediction: ClipPrediction, mode: Mode = "both") -> dict[str, Frames]:
    """Every measure in every frame of one clip, by row; `evaluate` takes means of these.

    Returns:
        For each row, float64 [T] under `iou`, `hidden_iou`, `official_iou`, `official_hidden_iou`, `box_iou` and
        `psnr`, and [T - 1] under `flicker`; what was not asked for is absent.

    Raises:
        InputError: numbers of frames or sizes differ.
    """
    check_pair(truth, prediction, resizes=mode == "official")
    given = prediction.boxes
    samples = [
        _measure(truth, masks, None if given is None else given[k], mode) for k, masks in enumerate(prediction.samples)
    ]
    rows = {
        "modal": _measure(truth, truth.modal, None, mode),
        "convex": _measure(truth, measures.convex_hull(truth.modal), None, mode),
    }
    if prediction.rgb is not None and truth.whole_rgb is not None:
        seen = truth.frames if truth.frames is not None else truth.whole_rgb
        filled = measures.mean_colour(seen, truth.modal)
        rows["mean colour"] = {"psnr": measures.hidden_psnr(filled, truth.whole_rgb, truth.hidden)}
        predicted = in_frame(prediction.rgb, truth)
        rows["Top-1"] = samples[0] | {"psnr": measures.hidden_psnr(predicted, truth.whole_rgb, truth.hidden)}
    else:
        rows["Top-1"] = samples[0]
    if len(samples) > 1:
        rows[f"Top-{len(samples)}"] = _best(samples)
    return rows


def _measure(truth: ClipTruth, predicted: Bools, boxes: Floats | None, mode: Mode) -> Frames:
    frames: Frames = {}
    masks = at_frame_size(predicted, truth)
    if mode != "strict":
        # Masks of a size of their own are resized once, straight to the official one.
        published = measures.official_ious(in_frame(predicted, truth), truth.amodal, truth.modal)
        frames["official_iou"], frames["official_hidden_iou"] = published
    if mode != "official":
        frames["iou"] = measures.iou(masks, truth.amodal)
        frames["hidden_iou"] = measures.hidden_iou(masks, truth.amodal, truth.modal)
    if boxes is None:
        padded = predicted.shape[1:] == truth.padded_size
        boxes = protocol_boxes(predicted if padded else masks, truth.modal, truth.pads if padded else (0, 0))
    true_boxes = mask_boxes(truth.amodal) if truth.boxes is None else np.asarray(truth.boxes, np.float64)
    frames["box_iou"] = measures.box_iou(np.asarray(boxes, np.float64), true_boxes)
    frames["flicker"] = measures.flicker(masks, truth.amodal)
    return frames


def _best(samples: Sequence[Frames]) -> Frames:
    """The best of the samples in each frame, measure by measure (Diffusion-VAS section 4.1, Top-K)."""
    names = [name for name in samples[0] if name != "flicker"]
    return {name: np.fmax.reduce([sample[name] for sample in samples]) for name in names}


def _row(name: str, clips: Sequence[Frames]) -> Row:
    joined = {key: np.concatenate([frames[key] for frames in clips if key in frames]) for key in set().union(*clips)}
    boxes = joined.get("box_iou", np.array([]))
    boxes = boxes[~np.isnan(boxes)]
    shares = {key: float((boxes > limit).mean()) for key, limit in _THRESHOLDS.items()} if boxes.size else {}
    return Row(
        name=name,
        official=_mask_scores(joined, "official_iou", "official_hidden_iou"),
        strict=_mask_scores(joined, "iou", "hidden_iou"),
        flicker=_mean(joined, "flicker"),
        psnr=_mean(joined, "psnr"),
        **shares,
    )


def _mask_scores(joined: Frames, whole: str, hidden: str) -> MaskScores | None:
    mean = _mean(joined, whole)
    if mean is None:
        return None
    counted = int((~np.isnan(joined[hidden])).sum())
    return MaskScores(miou=mean, miou_occ=_mean(joined, hidden), frames=len(joined[whole]), frames_occ=counted)


def _mean(joined: Frames, key: str) -> float | None:
    values = joined.get(key, np.array([]))
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None
