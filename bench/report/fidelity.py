"""Fidelity in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..schema import Fidelity
from ..wording import DASH, describe_executed, describe_work, distinct_names
from .document import Figure, Section, Table
from .drawing import Canvas, legend_below, plain_log, series


def section(found: Sequence[Fidelity]) -> Section:
    """Every fidelity measurement of a results file."""
    named = list(zip(distinct_names([(m.work, m.executed) for m in found]), found, strict=True))
    rows = [
        [
            name,
            stage.stage,
            f"{stage.latents[0]:.1e}" if stage.latents else DASH,
            f"{stage.latents[-1]:.1e}" if stage.latents else DASH,
            DASH if stage.masks_iou is None else f"{stage.masks_iou:.4f}",
            f"{stage.frames_mean:.3g}",
            str(stage.frames_max),
        ]
        for name, m in named
        for stage in m.stages
    ]
    table = Table(
        "Latents: relative L2 difference. Masks: IoU of all frames together. Frames: absolute difference of decoded "
        "pictures, in grey levels of 255.",
        ["run", "stage", "first step", "last step", "masks IoU", "frames, mean", "frames, most"],
        rows,
        texts=2,
    )
    curves = [(f"{name}: {s.stage}", s.latents) for name, m in named for s in m.stages if any(x > 0 for x in s.latents)]
    figure = Figure(
        "Difference, step by step",
        "Relative L2 difference of the latents after each denoising step, on a logarithmic scale; lower is closer.",
        "; ".join(
            f"{name}: {values[0]:.1e} after the first step, {values[-1]:.1e} after the last" for name, values in curves
        )
        + ".",
        partial(_curves, curves),
    )
    return Section(
        "fidelity",
        "Fidelity",
        "Beside a run in float32 of the same weights, from the same noise.",
        [],
        [table],
        [figure] if curves else [],
        [
            f"{name}: {describe_work(m.work)}; {describe_executed(m.executed)}. Reference: {m.reference}."
            for name, m in named
        ]
        + ([] if curves or not rows else ["The latents are identical to the reference's in every step."]),
    )


def _curves(curves: Sequence[tuple[str, list[float]]]) -> str:
    canvas = Canvas(2.6 + 0.18 * -(-len(curves) // 2))
    with canvas as (figure, (axes,)):
        lines = []
        for index, (_, values) in enumerate(curves):
            points = [(step, value) for step, value in enumerate(values, 1) if value > 0]
            lines += axes.plot(*zip(*points, strict=True), "o-", markersize=2.5, color=series(index))
        plain_log(axes, "y")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("denoising step")
        axes.set_ylabel("relative L2, measured")
        axes.grid()
        legend_below(figure, lines, [name for name, _ in curves], columns=1 if len(curves) < 3 else 2)
    return canvas.svg
