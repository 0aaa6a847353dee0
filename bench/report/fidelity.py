"""Fidelity in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..schema import Fidelity
from ..wording import DASH, describe_runs, name_runs
from .document import Content, Figure, tabulate
from .drawing import Canvas, legend_below, log_scale, series


def content(found: Sequence[Fidelity]) -> Content:
    """The fidelity section: tables, figures, notes and warnings."""
    named = name_runs(found)
    rows = [
        {
            "run": name,
            "stage": stage.stage,
            "first step": f"{stage.latents[0]:.1e}" if stage.latents else DASH,
            "last step": f"{stage.latents[-1]:.1e}" if stage.latents else DASH,
            "masks IoU": DASH if stage.masks_iou is None else f"{stage.masks_iou:.4f}",
            "frames, mean": f"{stage.frames_mean:.3g}",
            "frames, max": str(stage.frames_max),
        }
        for name, m in named
        for stage in m.stages
    ]
    caption = (
        "Latents: relative L2 difference. Masks: IoU over all frames together. Frames: absolute difference of decoded "
        "pictures, in grey levels of 255."
    )
    curves = [(f"{name}: {s.stage}", s.latents) for name, m in named for s in m.stages if any(x > 0 for x in s.latents)]
    described = [f"{name}: {x[0]:.1e} after the first step, {x[-1]:.1e} after the last" for name, x in curves]
    figure = Figure(
        "Difference after each step",
        "Relative L2 difference of the latents after each denoising step, on a logarithmic scale; lower is closer.",
        "; ".join(described) + ".",
        partial(_plot, curves),
    )
    notes = [f"{text} Reference: {m.reference}." for text, m in zip(describe_runs(named), found, strict=True)]
    if rows and not curves:
        notes.append("The latents are identical to the reference's in every step.")
    return [tabulate(caption, rows, texts=2)], [figure] if curves else [], notes, []


def _plot(curves: Sequence[tuple[str, list[float]]], canvas: Canvas) -> None:
    canvas.set_figheight(2.6 + 0.18 * -(-len(curves) // 2))
    axes = canvas.subplots()
    lines = []
    for index, (_, values) in enumerate(curves):
        points = [(step, value) for step, value in enumerate(values, 1) if value > 0]
        lines += axes.plot(*zip(*points, strict=True), "o-", markersize=2.5, color=series(index))
    log_scale(axes, "y")
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="denoising step", ylabel="relative L2, measured")
    axes.grid()
    legend_below(canvas, lines, [name for name, _ in curves], columns=1 if len(curves) < 3 else 2)
