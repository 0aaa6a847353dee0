"""Scaling in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

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
        tables.append(_fits(name, m))
        for sweep in m.sweeps:
            medians = {f"{p.value:g}": statistics.median_of(p.seconds) for p in sweep.points if p.seconds}
            if not medians:
                continue
            tables.append(_points(name, sweep))
            words = "; ".join(f"{value}: {seconds(median)}" for value, median in medians.items())
            figures.append(
                Figure(
                    f"By {sweep.axis}: {name}",
                    f"Dots are clips, the line is {seconds(sweep.fixed)} + {seconds(sweep.each)} x {sweep.axis}, "
                    "fitted to the medians. Right: peak memory.",
                    f"Seconds per clip by {sweep.axis}: {words}.",
                    partial(_plot, sweep),
                )
            )
    skipped = [f"{s.axis} {value} left out: {why}" for m in found for s in m.sweeps for value, why in s.skipped.items()]
    return tables, figures, [*describe_runs(named), *skipped], []


def _fits(name: str, m: Scaling) -> Table:
    rows = [
        {
            "axis": s.axis,
            "points": str(len(s.points)),
            "fixed": seconds(s.fixed),
            "each": f"{seconds(s.each)} x {s.unit}",
            "exponent": f"{s.exponent:.2f}",
        }
        for s in m.sweeps
    ]
    caption = f"{name}: seconds = fixed + each x value, fitted to measured medians; exponent of a power law."
    return tabulate(caption, rows)


def _points(name: str, sweep: Sweep) -> Table:
    rows = [
        {
            sweep.axis: f"{point.value:g}",
            "clip, median": seconds(statistics.median_of(point.seconds)),
            "fit": seconds(sweep.fixed + sweep.each * point.value),
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
    ends = np.array([0.0, max(values)])
    time.plot(ends, sweep.fixed + sweep.each * ends, color=MUTED, linewidth=1, linestyle="--")
    time.set_ylabel("s per clip, measured")
    memory.plot(values, [p.peak / 1e9 for p in sweep.points], "o-", markersize=3.5, color=series(2))
    memory.set_ylabel("GB, measured")
    for axes in (time, memory):
        axes.set(xlabel=sweep.axis, xlim=(0, 1.05 * max(values)))
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.locator_params(axis="x", nbins=4)
