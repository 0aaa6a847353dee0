"""Latency in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import statistics
from ..schema import ClipTimes, Latency
from ..wording import (
    DASH,
    OUTSIDE,
    describe_executed,
    describe_work,
    distinct_names,
    per_frame,
    percent,
    plural,
    seconds,
)
from .document import Figure, Section, Table
from .drawing import SERIES, Canvas, bare, beside, colour_of, label, legend_below, series


def section(found: Sequence[Latency]) -> Section:
    """Every latency measurement of a results file."""
    names = distinct_names([(m.work, m.executed) for m in found])
    runs = [(name, m) for name, m in zip(names, found, strict=True) if m.clips]
    tables = [_summary(names, found), _cold(names, found)]
    figures = []
    if runs:
        figures.append(
            Figure(
                "Every clip",
                "Each dot is one clip, in seconds; the box spans the middle half (from five clips on), the "
                "line is the median. The axes do not begin at 0.",
                "Distribution of seconds per clip. " + " ".join(_words(name, m) for name, m in runs),
                partial(_distribution, runs),
            )
        )
    for name, m in runs:
        tables.append(_components(name, m))
        figures.append(
            Figure(
                f"Where a clip's time goes: {name}",
                "Medians over clips, by stage and component; what no network accounts for is outside the networks.",
                "; ".join(f"{part} {seconds(value)}" for part, value in part_medians(m.clips).items()) + ".",
                partial(_stacks, m),
            )
        )
    tables += [_device(name, m) for name, m in runs if any(clip.device for clip in m.clips)]
    figures += [
        Figure(
            f"Denoising steps: {name}",
            "Median over clips of each step; the band holds the middle 80 % of clips.",
            f"Seconds of each denoising step of {name}, by stage.",
            partial(_steps, m),
        )
        for name, m in runs
        if any(any(clip.steps.values()) for clip in m.clips)
    ]
    notes = [
        f"{name}: {describe_work(m.work)}; {describe_executed(m.executed)}."
        for name, m in zip(names, found, strict=True)
    ]
    needs = ", ".join(f"p{p} needs {statistics.samples_needed(p)}" for p in statistics.PERCENTILES[1:])
    notes.append(
        f"A percentile is left out where too few clips lie beyond it ({needs}); the slowest clip is given instead."
    )
    return Section(
        "latency",
        "Latency",
        "Whole clips after warm-up, from raw arrays to masks and RGB on the host.",
        [f"{name}: {text}" for name, m in zip(names, found, strict=True) for text in m.warnings],
        tables,
        figures,
        notes,
    )


def part_medians(clips: Sequence[ClipTimes]) -> dict[str, float]:
    """Median seconds by component, and outside the networks."""
    parts = [clip.parts for clip in clips]
    names = dict.fromkeys(name for found in parts for name in found)
    found = {name: float(np.median([part.get(name, 0.0) for part in parts])) for name in names}
    return {**found, OUTSIDE: float(np.median([clip.outside for clip in clips]))}


def _words(name: str, m: Latency) -> str:
    summary = statistics.summarise([clip.seconds for clip in m.clips])
    assert summary is not None
    return (
        f"{name}: median {seconds(summary.median)}, from {seconds(summary.minimum)} to {seconds(summary.maximum)} "
        f"over {plural(summary.count, 'clip')}."
    )


def _summary(names: Sequence[str], found: Sequence[Latency]) -> Table:
    head = ["run", "clips", "s/frame", "clip", *(f"p{p}" for p in statistics.PERCENTILES[1:]), "slowest", "spread"]
    rows = []
    for name, m in zip(names, found, strict=True):
        summary = statistics.summarise([clip.seconds for clip in m.clips])
        if summary is None:
            rows.append([name, "0", *[DASH] * (len(head) + 1)])
            continue
        rows.append(
            [
                name,
                str(summary.count),
                per_frame(summary.median, m.work),
                seconds(summary.median),
                *(seconds(summary.percentiles[p]) for p in statistics.PERCENTILES[1:]),
                seconds(summary.maximum),
                percent(summary.spread if summary.count > 1 else None),
                f"{m.work.frames / summary.median:.3g}",
                percent(m.overhead, 2),
            ]
        )
    return Table(
        "Seconds per frame and per clip are medians. Spread is the interquartile range over the median; "
        "overhead is what measuring itself took.",
        [*head, "frames/s", "overhead"],
        rows,
    )


def _cold(names: Sequence[str], found: Sequence[Latency]) -> Table:
    parts = list(dict.fromkeys(part for m in found for part in m.cold))
    rows = [
        [name, *(seconds(m.cold.get(part)) for part in parts), seconds(sum(m.cold.values())) if m.cold else DASH]
        for name, m in zip(names, found, strict=True)
    ]
    return Table("Cold start, once each, in a new process.", ["run", *parts, "together"], rows)


def _components(name: str, m: Latency) -> Table:
    whole = float(np.median([clip.seconds for clip in m.clips]))
    rows = []
    for part, value in part_medians(m.clips).items():
        samples = [c.outside if part == OUTSIDE else c.parts.get(part, 0.0) for c in m.clips]
        summary = statistics.summarise(samples)
        assert summary is not None
        rows.append(
            [
                part,
                seconds(value),
                percent(value / whole if whole else None),
                seconds(summary.iqr if summary.count > 1 else None),
            ]
        )
    return Table(
        f"{name}: a clip by component, medians.", ["component", "per clip", "share", "interquartile range"], rows
    )


def _device(name: str, m: Latency) -> Table:
    phases = list(dict.fromkeys(phase for clip in m.clips for phase in clip.device or {}))
    rows = []
    for phase in phases:
        summary = statistics.summarise([clip.device[phase] for clip in m.clips if clip.device and phase in clip.device])
        assert summary is not None
        rows.append([phase, seconds(summary.median), seconds(summary.iqr)])
    return Table(
        f"{name}: on the device, between events on the stream, medians.",
        ["phase", "per clip", "interquartile range"],
        rows,
    )


def _distribution(runs: Sequence[tuple[str, Latency]]) -> str:
    canvas = Canvas(0.35 + 1.05 * len(runs), rows=len(runs))
    with canvas as (_, every):
        for index, (axes, (name, m)) in enumerate(zip(every, runs, strict=True)):
            values = np.array([clip.seconds for clip in m.clips])
            # Golden-ratio steps spread neighbours apart and are the same in every rendering.
            heights = (np.arange(len(values)) * 0.618034) % 1 * 0.7 - 0.35
            axes.scatter(values, heights, s=9, color=series(index), alpha=0.55, linewidths=0)
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            if len(values) >= statistics.ENOUGH:
                axes.fill_between([low, high], -0.42, 0.42, color=series(index), alpha=0.18, linewidth=0)
            axes.plot([middle, middle], [-0.46, 0.46], color=series(index), linewidth=2)
            axes.set_ylim(-0.55, 0.55)
            axes.set_title(label(f"{name}: median {seconds(float(middle))}"))
            axes.grid(axis="x")
            axes.margins(x=0.04)
            bare(axes)
        every[-1].set_xlabel("seconds per clip, measured")
    return canvas.svg


def _stacks(m: Latency) -> str:
    medians = part_medians(m.clips)
    rows: dict[str, dict[str, float]] = {}
    for part, value in medians.items():
        stage = OUTSIDE if part == OUTSIDE else part.rpartition("/")[0] or "both stages"
        rows.setdefault(stage, {})[part.rpartition("/")[2]] = value
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    canvas = Canvas(1.05 + 0.34 * len(rows) + 0.18 * -(-len(names) // 3))
    with canvas as (figure, (axes,)):
        handles: dict[str, Any] = {}
        for place, parts in enumerate(rows.values()):
            left = 0.0
            for name, value in parts.items():
                colour = SERIES[-1] if name == OUTSIDE else colour_of(name)
                bar = axes.barh(place, value, 0.62, left=left, color=colour, hatch="////" if name == OUTSIDE else None)
                handles.setdefault(name, bar)
                left += value
            beside(axes, seconds(left), left, place)
        axes.set_yticks(range(len(rows)), [label(row, 22) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds per clip, measured")
        axes.grid(axis="x")
        legend_below(figure, list(handles.values()), list(handles))
    return canvas.svg


def _steps(m: Latency) -> str:
    stages = list(dict.fromkeys(stage for clip in m.clips for stage in clip.steps))
    canvas = Canvas(2.3)
    with canvas as (figure, (axes,)):
        lines = []
        for index, stage in enumerate(stages):
            series_of = [clip.steps[stage] for clip in m.clips if clip.steps.get(stage)]
            count = min(map(len, series_of), default=0)
            if not count:
                continue
            values = np.array([steps[:count] for steps in series_of])
            low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
            steps = np.arange(1, count + 1)
            axes.fill_between(steps, low, high, color=series(index), alpha=0.2, linewidth=0)
            lines += axes.plot(steps, middle, "o-", markersize=2.5, color=series(index), label=stage)
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("denoising step")
        axes.set_ylabel("seconds, measured")
        axes.grid(axis="y")
        legend_below(figure, lines, [str(line.get_label()) for line in lines])
    return canvas.svg
