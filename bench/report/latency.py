"""Latency in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import statistics
from ..schema import Latency
from ..schema.running import OUTSIDE
from ..wording import DASH, describe_runs, name_runs, per_frame, percent, plural, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import SERIES, Canvas, component_colour, label, legend_below, scatter_clips, series

Runs = Sequence[tuple[str, Latency]]


def content(found: Sequence[Latency]) -> Content:
    """The latency section: tables, figures, notes and warnings."""
    named = name_runs(found)
    runs = [(name, m) for name, m in named if m.clips]
    devices = [_device(name, m) for name, m in runs if any(clip.device for clip in m.clips)]
    needs = ", ".join(f"p{p} needs {statistics.samples_needed(p)}" for p in statistics.PERCENTILES[1:])
    note = f"A percentile is left out if too few clips lie beyond it ({needs}); the slowest clip is shown instead."
    tables = [_summary(named), _cold(named), *(_components(name, m) for name, m in runs), *devices]
    warnings = [f"{name}: {text}" for name, m in named for text in m.warnings]
    return tables, _figures(runs), [*describe_runs(named), note], warnings


def _part_medians(m: Latency) -> dict[str, float]:
    return {name: float(np.median(samples)) for name, samples in m.part_seconds.items()}


def _figures(runs: Runs) -> list[Figure]:
    if not runs:
        return []
    words = [
        f"{name}: median {seconds(statistics.median_of(m.seconds))}, from {seconds(min(m.seconds))} to "
        f"{seconds(max(m.seconds))} over {plural(len(m.clips), 'clip')}."
        for name, m in runs
    ]
    every = Figure(
        "Every clip",
        "Each dot is one clip, in seconds; the box spans the middle half (from five clips on), the line is the median. "
        "The axes do not begin at 0.",
        f"Distribution of seconds per clip. {' '.join(words)}",
        partial(_plot_clips, runs),
    )
    parts = [
        Figure(
            f"Time of a clip by component: {name}",
            "Medians over clips, by stage and component; the rest is outside the networks.",
            "; ".join(f"{part} {seconds(value)}" for part, value in _part_medians(m).items()) + ".",
            partial(_plot_parts, m),
        )
        for name, m in runs
    ]
    steps = [
        Figure(
            f"Denoising steps: {name}",
            "Median over clips of each step; the band spans the middle 80 % of clips.",
            f"Seconds of each denoising step of {name}, by stage.",
            partial(_plot_steps, m),
        )
        for name, m in runs
        if any(any(clip.steps.values()) for clip in m.clips)
    ]
    return [every, *parts, *steps]


def _summary(named: Runs) -> Table:
    rows = []
    for name, m in named:
        s = statistics.summarise(m.seconds)
        tails = {f"p{p}": seconds(s.percentiles[p] if s else None) for p in statistics.PERCENTILES[1:]}
        rows.append(
            {
                "run": name,
                "clips": str(len(m.clips)),
                "s/frame": per_frame(s.median if s else None, m.work),
                "clip": seconds(s.median if s else None),
                **tails,
                "slowest": seconds(s.maximum if s else None),
                "spread": percent(s.iqr / s.median if s and s.count > 1 and s.median else None),
                "frames/s": f"{m.work.frames / s.median:.3g}" if s else DASH,
                "overhead": percent(m.overhead if s else None, 2),
            }
        )
    caption = (
        "Seconds per frame and per clip are medians. Spread is the interquartile range divided by the median; overhead "
        "is the share of time that measuring itself took."
    )
    return tabulate(caption, rows)


def _cold(named: Runs) -> Table:
    parts = list(dict.fromkeys(part for _, m in named for part in m.cold))
    rows = []
    for name, m in named:
        columns = {part: seconds(m.cold.get(part)) for part in parts}
        rows.append({"run": name, **columns, "together": seconds(sum(m.cold.values())) if m.cold else DASH})
    return tabulate("Cold start, measured once each, in a new process.", rows)


def _components(name: str, m: Latency) -> Table:
    whole = float(np.median(m.seconds))
    rows = []
    for part, samples in m.part_seconds.items():
        share = percent(float(np.median(samples)) / whole if whole else None)
        rows.append({"component": part, **_typical(samples, share=share)})
    return tabulate(f"{name}: a clip by component, medians.", rows)


def _device(name: str, m: Latency) -> Table:
    times = [clip.device for clip in m.clips if clip.device]
    phases = dict.fromkeys(phase for clip in times for phase in clip)
    rows = [{"phase": phase, **_typical([clip[phase] for clip in times if phase in clip])} for phase in phases]
    return tabulate(f"{name}: on the device, between events on the stream, medians.", rows)


def _typical(samples: Sequence[float], **more: str) -> dict[str, str]:
    median, iqr = statistics.median_of(samples), statistics.iqr_of(samples)
    return {"per clip": seconds(median), **more, "interquartile range": seconds(iqr)}


def _plot_clips(runs: Runs, canvas: Canvas) -> None:
    canvas.set_figheight(0.35 + 1.05 * len(runs))
    panels = canvas.subplots(len(runs), squeeze=False)[:, 0]
    for index, (axes, (name, m)) in enumerate(zip(panels, runs, strict=True)):
        scatter_clips(axes, m.seconds, 0, 0.7, s=9, color=series(index))
        low, middle, high = np.quantile(m.seconds, (0.25, 0.5, 0.75))
        if len(m.clips) >= statistics.ENOUGH:
            axes.fill_between([low, high], -0.42, 0.42, color=series(index), alpha=0.18, linewidth=0)
        axes.plot([middle, middle], [-0.46, 0.46], color=series(index), linewidth=2)
        axes.set(ylim=(-0.55, 0.55), title=label(f"{name}: median {seconds(float(middle))}"))
        axes.grid(axis="x")
        axes.margins(x=0.04)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
    panels[-1].set_xlabel("seconds per clip, measured")


def _plot_parts(m: Latency, canvas: Canvas) -> None:
    rows: dict[str, dict[str, float]] = {}
    for part, value in _part_medians(m).items():
        stage = OUTSIDE if part == OUTSIDE else part.rpartition("/")[0] or "both stages"
        rows.setdefault(stage, {})[part.rpartition("/")[2]] = value
    names = {name for parts in rows.values() for name in parts}
    canvas.set_figheight(1.05 + 0.34 * len(rows) + 0.18 * -(-len(names) // 3))
    axes = canvas.subplots()
    handles: dict[str, Any] = {}
    for place, parts in enumerate(rows.values()):
        left = 0.0
        for name, value in parts.items():
            colour = SERIES[-1] if name == OUTSIDE else component_colour(name)
            bar = axes.barh(place, value, 0.62, left=left, color=colour, hatch="////" if name == OUTSIDE else None)
            handles.setdefault(name, bar)
            left += value
        axes.bar_label(bar, [seconds(left)], padding=4, fontsize=8.5)
    axes.set_yticks(range(len(rows)), [label(row, 22) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds per clip, measured")
    axes.grid(axis="x")
    legend_below(canvas, list(handles.values()), list(handles))


def _plot_steps(m: Latency, canvas: Canvas) -> None:
    canvas.set_figheight(2.3)
    axes = canvas.subplots()
    lines: dict[str, Any] = {}
    for index, stage in enumerate(dict.fromkeys(stage for clip in m.clips for stage in clip.steps)):
        samples = [clip.steps[stage] for clip in m.clips if clip.steps.get(stage)]
        if not samples:
            continue
        count = min(map(len, samples))
        low, middle, high = np.quantile([steps[:count] for steps in samples], (0.1, 0.5, 0.9), axis=0)
        steps = np.arange(1, count + 1)
        axes.fill_between(steps, low, high, color=series(index), alpha=0.2, linewidth=0)
        (lines[stage],) = axes.plot(steps, middle, "o-", markersize=2.5, color=series(index))
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="denoising step", ylabel="seconds, measured")
    axes.grid(axis="y")
    legend_below(canvas, list(lines.values()), list(lines))
