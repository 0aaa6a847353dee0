"""Scaling in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from .. import statistics
from ..schema import Scaling, Sweep
from ..wording import describe_executed, describe_work, distinct_names, in_bytes, seconds
from .document import Figure, Section, Table
from .drawing import MUTED, Canvas, series


def section(found: Sequence[Scaling]) -> Section:
    """Every scaling measurement of a results file."""
    tables, figures, notes = [], [], []
    for name, m in zip(distinct_names([(m.work, m.executed) for m in found]), found, strict=True):
        tables.append(_fits(name, m))
        notes.append(f"{name}: {describe_work(m.work)}; {describe_executed(m.executed)}.")
        for sweep in m.sweeps:
            notes += [f"{sweep.axis} {value} left out: {reason}" for value, reason in sweep.skipped.items()]
            if not any(p.seconds for p in sweep.points):
                continue
            tables.append(_points(name, sweep))
            figures.append(
                Figure(
                    f"By {sweep.axis}: {name}",
                    f"Dots are clips, the line is {seconds(sweep.fixed)} + {seconds(sweep.each)} x {sweep.axis}, "
                    "fitted to the medians. Right: the highest memory.",
                    f"Seconds per clip by {sweep.axis}: "
                    + "; ".join(
                        f"{p.value:g}: {seconds(float(np.median(p.seconds)))}" for p in sweep.points if p.seconds
                    )
                    + ".",
                    partial(_sweep, sweep),
                )
            )
    return Section(
        "scaling",
        "Scaling",
        "How time and memory of a clip grow along one axis, everything else as it is.",
        [],
        tables,
        figures,
        notes,
    )


def _fits(name: str, m: Scaling) -> Table:
    rows = [
        [s.axis, str(len(s.points)), seconds(s.fixed), f"{seconds(s.each)} x {s.unit}", f"{s.exponent:.2f}"]
        for s in m.sweeps
    ]
    return Table(
        f"{name}: seconds = fixed + each x value, fitted to measured medians; the exponent is that of a power law.",
        ["axis", "points", "fixed", "each", "exponent"],
        rows,
    )


def _points(name: str, sweep: Sweep) -> Table:
    rows = []
    for point in sweep.points:
        summary = statistics.summarise(point.seconds)
        rows.append(
            [
                f"{point.value:g}",
                seconds(summary.median if summary else None),
                seconds(sweep.fixed + sweep.each * point.value),
                str(summary.count if summary else 0),
                in_bytes(point.peak),
            ]
        )
    return Table(
        f"{name}: by {sweep.axis} ({sweep.unit}).",
        [sweep.axis, "clip, median", "the fit says", "clips", "memory"],
        rows,
    )


def _sweep(sweep: Sweep) -> str:
    canvas = Canvas(2.2, columns=2)
    with canvas as (_, (time, memory)):
        top = max(p.value for p in sweep.points)
        for point in sweep.points:
            count = len(point.seconds)
            time.scatter([point.value] * count, point.seconds, s=9, color=series(0), alpha=0.5, linewidths=0)
        ends = np.array([0.0, top])
        time.plot(ends, sweep.fixed + sweep.each * ends, color=MUTED, linewidth=1, linestyle="--")
        time.set_ylabel("s per clip, measured")
        memory.plot(
            [p.value for p in sweep.points], [p.peak / 1e9 for p in sweep.points], "o-", markersize=3.5, color=series(2)
        )
        memory.set_ylabel("GB, measured")
        for axes in (time, memory):
            axes.set_xlabel(sweep.axis)
            axes.set_xlim(0, 1.05 * top)
            axes.set_ylim(bottom=0)
            axes.grid()
            axes.locator_params(axis="x", nbins=4)
    return canvas.svg
