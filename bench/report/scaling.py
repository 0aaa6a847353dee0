"""Scaling in the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from .. import statistics
from ..schema import Scaling, Sweep
from ..wording import describe_runs, in_bytes, name_runs, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import MUTED, Canvas, series


def content(found: Sequence[Scaling]) -> Content:
    """The scaling section: tables, figures, notes and warnings."""
    named = name_runs(found)
    tables, figures = [], []
    for name, m in named:
        fitted = [sweep for sweep in m.sweeps if sweep.fixed is not None]
        if fitted:
            tables.append(_fits(name, fitted))
        for sweep in m.sweeps:
            medians = {f"{p.value:g}": statistics.median_of(p.seconds) for p in sweep.points if p.seconds}
            if not medians:
                continue
            tables.append(_points(name, sweep))
            words = "; ".join(f"{value}: {seconds(median)}" for value, median in medians.items())
            line = f"the line is {_line(sweep, sweep.axis)}, fitted to the medians"
            shown = f"Dots are clips{f', {line}' if sweep in fitted else ''}. Right: peak memory."
            figures.append(
                Figure(
                    f"By {sweep.axis}: {name}",
                    shown,
                    f"Seconds per clip by {sweep.axis}: {words}.",
                    partial(_plot, sweep),
                )
            )
    return tables, figures, [*describe_runs(named), *left_out([sweep for m in found for sweep in m.sweeps])], []


def left_out(sweeps: Iterable[Sweep]) -> list[str]:
    """Says which values could not be run, each reason once: `frames 2, 6 and pixels 2048 left out: why`."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for sweep in sweeps:
        for value, why in sweep.skipped.items():
            reasons.setdefault(why, {}).setdefault(sweep.axis, []).append(value)
    listed = {
        why: " and ".join(f"{axis} {', '.join(values)}" for axis, values in axes.items())
        for why, axes in reasons.items()
    }
    return [f"{values} left out: {why}" for why, values in listed.items()]


def _line(sweep: Sweep, factor: str) -> str:
    return f"{seconds(sweep.fixed)} + {seconds(sweep.each)} x {factor}"


def _fits(name: str, sweeps: Sequence[Sweep]) -> Table:
    rows = [
        {
            "axis": s.axis,
            "points": str(len(s.points)),
            "fixed": seconds(s.fixed),
            "each": f"{seconds(s.each)} x {s.unit}",
            "exponent": f"{s.exponent:.2f}",
        }
        for s in sweeps
    ]
    caption = f"{name}: seconds = fixed + each x value, fitted to measured medians; exponent of a power law."
    return tabulate(caption, rows)


def _points(name: str, sweep: Sweep) -> Table:
    rows = [
        {
            sweep.axis: f"{point.value:g}",
            "clip, median": seconds(statistics.median_of(point.seconds)),
            **({"fit": seconds(fit)} if (fit := sweep.predicted(point.value)) is not None else {}),
            "clips": str(len(point.seconds)),
            "memory": in_bytes(point.peak),
        }
        for point in sweep.points
    ]
    return tabulate(f"{name}: by {sweep.axis} ({sweep.unit}).", rows)


def _plot(sweep: Sweep, canvas: Canvas) -> None:
    canvas.set_figheight(2.2)
    time, memory = canvas.subplots(1, 2)
    values = [p.value for p in sweep.points]
    for p in sweep.points:
        time.scatter([p.value] * len(p.seconds), p.seconds, s=9, color=series(0), alpha=0.5, linewidths=0)
    ends = [(value, fit) for value in (0.0, max(values)) if (fit := sweep.predicted(value)) is not None]
    if ends:
        time.plot(*zip(*ends, strict=True), color=MUTED, linewidth=1, linestyle="--")
    time.set_ylabel("s per clip, measured")
    memory.plot(values, [p.peak / 1e9 for p in sweep.points], "o-", markersize=3.5, color=series(2))
    memory.set_ylabel("GB, measured")
    for axes in (time, memory):
        axes.set(xlabel=sweep.axis, xlim=(0, 1.05 * max(values)))
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.locator_params(axis="x", nbins=4)
