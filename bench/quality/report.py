"""Scores predictions and baselines with every measure, as means over all frames, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
from pydantic import Field
from rich import box
from rich.table import Table

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.padding import mask_boxes, protocol_boxes

from ..schema import Record
from . import measures
from .clips import Bools, ClipPrediction, ClipTruth, Floats, at_frame_size, check_pair, in_frame

Mode = Literal["official", "strict", "both"]
Frames = dict[str, Floats]
"""Values of each measure by frame; NaN where the measure does not apply."""

_THRESHOLDS = {"ap25": 0.25, "ap50": 0.5, "ap75": 0.75}
_ORDER = ("modal", "convex", "mean colour", "Top-1")  # and Top-K last
_OPTIONAL = {"mean colour"}  # only of clips with RGB


class MaskScores(Record):
    """mIoU in one mode.

    Attributes:
        miou: mean IoU over `frames` frames, in [0, 1].
        miou_occ: mean IoU of the hidden parts over `frames_occ` frames, in [0, 1]; None if no frame counts.
    """

    miou: float = Field(ge=0, le=1)
    miou_occ: float | None = Field(ge=0, le=1)
    frames: int
    frames_occ: int


class Row(Record):
    """All measures of one prediction or baseline; None where one was not requested or does not apply.

    Attributes:
        name: `modal`, `convex`, `mean colour`, `Top-1`, or `Top-K` for the best of K samples in each frame.
        official: as published, see `measures.official_ious`.
        strict: see `measures.iou` and `measures.hidden_iou`.
        ap25, ap50, ap75: share of frames whose box IoU exceeds 0.25, 0.5 and 0.75, as published for TAO-Amodal.
        flicker: mean over pairs of frames, in [0, 1], lower is better; not for `Top-K`, which is no video.
        psnr: dB inside the hidden region, mean over frames with one.
    """

    name: str
    official: MaskScores | None = None
    strict: MaskScores | None = None
    ap25: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    flicker: float | None = None
    psnr: float | None = None


class ClipScores(Record):
    """The rows of one clip, its number of frames, and how many of them have hidden pixels in the truth."""

    name: str
    frames: int
    hidden_frames: int
    rows: list[Row]


class Report(Record):
    """Quality over all frames of all clips, and clip by clip."""

    schema_version: int = 1
    mode: Mode
    frames: int
    hidden_frames: int
    rows: list[Row]
    clips: list[ClipScores]

    def row(self, name: str) -> Row:
        """The row of that name; raises KeyError if there is none."""
        return {row.name: row for row in self.rows}[name]


def evaluate(pairs: Iterable[tuple[ClipTruth, ClipPrediction]], mode: Mode = "both") -> Report:
    """Scores predictions against the truth, with the baselines `modal`, `convex` and `mean colour`.

    Means are over the frames of all clips, as in Diffusion-VAS section 4.1, not over clips. `Top-K` is the best of the
    K samples in each frame, separately for each measure.

    Boxes are compared by the padded-frame protocol: masks of the padded frame's size have boxes that may extend beyond
    the frame; those of the frame's size end at its border, while the true boxes do not.

    Args:
        pairs: truth and prediction of each clip; a generator keeps memory low, because only one pair is held at a time.
        mode: which mIoU: `official`, `strict` or both.

    Raises:
        InputError: there is no pair, frames, sizes or samples do not match, or the mode is unknown.
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
        raise InputError("there is no clip to measure; give at least one prediction and its truth.")
    return Report(
        mode=mode,
        frames=sum(clip.frames for clip in clips),
        hidden_frames=sum(clip.hidden_frames for clip in clips),
        rows=[_row(name, collected[name]) for name in [*filter(collected.get, _ORDER), *(set(collected) - {*_ORDER})]],
        clips=clips,
    )


def measure_clip(truth: ClipTruth, prediction: ClipPrediction, mode: Mode = "both") -> dict[str, Frames]:
    """Every measure in every frame of one clip, by row; `evaluate` returns their means.

    Each row has float64 [T] under `iou`, `hidden_iou`, `official_iou`, `official_hidden_iou`, `box_iou` and `psnr`, and
    [T - 1] under `flicker`; measures that were not requested are absent. Raises `InputError` if numbers of frames or
    sizes differ.
    """
    check_pair(truth, prediction, any_size=mode == "official" or (mode == "both" and prediction.of_network))
    pairs = zip_longest(prediction.samples, prediction.boxes or ())
    samples = [_measure(truth, masks, boxes, mode) for masks, boxes in pairs]
    rows = {
        "modal": _measure(truth, truth.modal, None, mode),
        "convex": _measure(truth, measures.convex_hull(truth.modal), None, mode),
    }
    top = samples[0]
    if prediction.rgb is not None and truth.whole_rgb is not None:
        filled = measures.mean_colour(truth.whole_rgb if truth.frames is None else truth.frames, truth.modal)
        predicted = in_frame(prediction.rgb, truth)
        rows["mean colour"] = {"psnr": measures.hidden_psnr(filled, truth.whole_rgb, truth.hidden)}
        top = top | {"psnr": measures.hidden_psnr(predicted, truth.whole_rgb, truth.hidden)}
    rows["Top-1"] = top
    if len(samples) > 1:  # the best in each frame, measure by measure (Diffusion-VAS section 4.1)
        names = [name for name in samples[0] if name != "flicker"]
        rows[f"Top-{len(samples)}"] = {name: np.fmax.reduce([sample[name] for sample in samples]) for name in names}
    return rows


def _measure(truth: ClipTruth, predicted: Bools, boxes: Floats | None, mode: Mode) -> Frames:
    frames: Frames = {}
    masks = at_frame_size(predicted, truth)
    if mode != "strict":
        # Masks of another size are resized once, directly to the official one.
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


def _row(name: str, clips: Sequence[Frames]) -> Row:
    joined = {key: np.concatenate([frames[key] for frames in clips if key in frames]) for key in set().union(*clips)}
    known = {key: values[~np.isnan(values)] for key, values in joined.items()}
    means = {key: float(values.mean()) for key, values in known.items() if values.size}
    scores: dict[str, Any] = {key: means.get(key) for key in ("flicker", "psnr")}
    if "box_iou" in means:
        scores |= {key: float((known["box_iou"] > limit).mean()) for key, limit in _THRESHOLDS.items()}
    for mode, prefix in (("official", "official_"), ("strict", "")):
        whole, hidden = f"{prefix}iou", f"{prefix}hidden_iou"
        if whole in means:
            counts = {"frames": len(joined[whole]), "frames_occ": len(known[hidden])}
            scores[mode] = MaskScores(miou=means[whole], miou_occ=means.get(hidden), **counts)
    return Row(name=name, **scores)


def render(report: Report) -> Table:
    """The report as a table for the terminal, a line per prediction or baseline; a dash where a measure does not apply.

    mIoU, mIoU_occ, AP and flicker in percent, as papers print them (the report has shares); PSNR in dB.
    """
    rows, columns = report.rows, {}
    for mode in ("official", "strict"):
        if report.mode in (mode, "both"):
            scores = [getattr(row, mode) for row in rows]
            columns[f"mIoU\n{mode}"] = [_percent(s and s.miou) for s in scores]
            columns[f"mIoU_occ\n{mode}"] = [_percent(s and s.miou_occ) for s in scores]
    for name in ("AP25", "AP50", "AP75", "flicker"):
        columns[name] = [_percent(getattr(row, name.lower())) for row in rows]
    if any(row.psnr is not None for row in rows):
        columns["PSNR\ndB"] = ["-" if row.psnr is None else f"{row.psnr:.2f}" for row in rows]
    clips = "1 clip" if len(report.clips) == 1 else f"{len(report.clips)} clips"
    frames = f"{report.frames} frames, {report.hidden_frames} of them with hidden parts"
    caption = f"{clips}, {frames}. mIoU, AP and flicker in percent; less flicker is better."
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("", no_wrap=True)
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for row, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(row.name, *cells)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
