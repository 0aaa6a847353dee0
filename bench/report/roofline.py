"""Roofline and predictions in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from amodal.bench.schema import Ceilings, ComponentCost, Prediction, Roofline
from amodal.bench.wording import DASH, describe_executed, describe_work, digits, in_bytes, operations, percent, seconds

from .document import Figure, Section, Table
from .drawing import INK, Canvas, beside, colour_of, label, legend_below, plain_log, series


def section(found: Sequence[Roofline]) -> Section:
    """Every roofline of a results file."""
    tables, figures, notes = [], [], []
    for m in found:
        tables += [_counted(m), _reached(m), _ceilings(m.ceilings)]
        notes.append(
            describe_work(m.work) + (f"; {describe_executed(m.executed)}." if m.executed else "; nothing was executed.")
        )
        timed = [c for c in m.components if _intensity(c) and c.seconds]
        if timed and m.ceilings.flops and m.ceilings.bandwidth:
            figures.append(
                Figure(
                    "Roofline of this machine",
                    "Across: operations per byte, counted from the graphs. Up: operations per second reached, "
                    "measured. The roof is what this machine reached in matrix products and copies, measured.",
                    "; ".join(
                        f"{c.component} reached {operations(_total(c) / (c.seconds or 1), 'FLOP/s')}" for c in timed
                    )
                    + f". Ceiling {operations(_median(m.ceilings.flops), 'FLOP/s')}.",
                    partial(_roof, m.ceilings, timed),
                )
            )
        if m.predictions:
            tables.append(_predicted(m.predictions))
            figures.append(
                Figure(
                    "What a GPU would take",
                    "Predicted, not measured: the least seconds per frame at the full published rate, and what is "
                    "likely at the share of it that the table says.",
                    "Predicted seconds per frame. "
                    + "; ".join(f"{p.gpu}, {p.accumulation}: at least {seconds(p.floor)}" for p in m.predictions)
                    + ".",
                    partial(_floors, m.predictions),
                    "predicted",
                )
            )
    return Section(
        "roofline",
        "Roofline",
        "Operations and bytes of a clip counted from the graphs, beside what this machine can do. A multiply-add is "
        "two operations; bytes assume that every operator reads and writes memory once.",
        [],
        tables,
        figures,
        notes,
    )


def reached(m: Roofline) -> float | None:
    """Share of the ceiling that all components together reach; None if one was not run."""
    timed = [c for c in m.components if c.seconds]
    if not timed or not m.ceilings.flops:
        return None
    return sum(map(_total, timed)) / sum(c.seconds or 0.0 for c in timed) / _median(m.ceilings.flops)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _flops(value: float) -> str:
    return operations(value, "FLOP/s")


def _copies(value: float) -> str:
    return f"{in_bytes(value)}/s"


def _total(cost: ComponentCost) -> float:
    return sum(cost.flops.values())


def _intensity(cost: ComponentCost) -> float:
    moved = cost.weights + cost.activations
    return _total(cost) / moved if moved else 0.0


def _counted(m: Roofline) -> Table:
    kinds = list(dict.fromkeys(kind for c in m.components for kind in c.flops))
    rows = [
        [
            c.component,
            str(c.calls),
            operations(_total(c)),
            *(operations(c.flops.get(kind, 0.0)) for kind in kinds),
            in_bytes(c.weights),
            in_bytes(c.activations),
        ]
        for c in m.components
    ]
    head = ["component", "calls", "operations", *kinds, "weights", "activations"]
    return Table("Of one clip, all calls together, counted from the graphs.", head, rows, "counted")


def _reached(m: Roofline) -> Table:
    ceiling = _median(m.ceilings.flops) if m.ceilings.flops else None
    bandwidth = _median(m.ceilings.bandwidth) if m.ceilings.bandwidth else None
    rows = []
    for c in m.components:
        intensity, rate = _intensity(c), _total(c) / c.seconds if c.seconds else None
        roof = min(ceiling, intensity * bandwidth) if ceiling and bandwidth and intensity else None
        rows.append(
            [
                c.component,
                seconds(c.seconds) if c.seconds is not None else "not run",
                f"{intensity:.3g} FLOP/B" if intensity else DASH,
                operations(rate, "FLOP/s"),
                percent(rate / ceiling if rate is not None and ceiling else None),
                percent(rate / roof if rate is not None and roof else None),
            ]
        )
    head = ["component", "per clip", "intensity", "reached", "of the ceiling", "of its own roof"]
    return Table(
        "Rates reached; a component's own roof is the lower of arithmetic and copies at its intensity.", head, rows
    )


def _ceilings(ceilings: Ceilings) -> Table:
    rows = []
    for name, values, text in (
        (f"matrix products, {ceilings.precision}", ceilings.flops, _flops),
        ("copies", ceilings.bandwidth, _copies),
    ):
        if values:
            rows.append([name, text(_median(values)), text(min(values)), text(max(values)), str(len(values))])
        else:
            rows.append([name, *[DASH] * 3, "0"])
    return Table("Ceilings of this machine.", ["ceiling", "median", "lowest", "highest", "samples"], rows)


def _predicted(predictions: Sequence[Prediction]) -> Table:
    rows = [
        [
            p.gpu,
            p.accumulation,
            f"{digits(p.floor)} s",
            f"{digits(p.likely)} s (at {percent(p.likely_share, 0)})",
            operations(p.rate, "FLOP/s"),
            in_bytes(p.bandwidth) + "/s",
            in_bytes(p.vram),
            p.source,
        ]
        for p in predictions
    ]
    head = [
        "GPU",
        "accumulation",
        "s/frame, least",
        "s/frame, likely",
        "rate",
        "bandwidth",
        "VRAM",
        "source of the rates",
    ]
    return Table(
        "Seconds per frame by GPU, from published rates; nothing here was measured.", head, rows, "predicted", 2
    )


def _roof(ceilings: Ceilings, timed: Sequence[ComponentCost]) -> str:
    flops, bandwidth = _median(ceilings.flops), _median(ceilings.bandwidth)
    intensities = [_intensity(c) for c in timed]
    low = min([*intensities, flops / bandwidth]) / 4
    high = max([*intensities, flops / bandwidth]) * 4
    stages = list(dict.fromkeys(c.component.rpartition("/")[0] for c in timed))
    canvas = Canvas(2.9 + 0.18 * -(-len(timed) // 2))
    with canvas as (figure, (axes,)):
        x = np.geomspace(low, high, 200)
        axes.plot(x, np.minimum(flops, bandwidth * x) / 1e9, color=INK, linewidth=1.6)
        rate, copies = operations(flops, "FLOP/s"), in_bytes(bandwidth) + "/s"
        axes.text(high, flops / 1e9 * 1.12, f"{ceilings.precision}: {rate}", ha="right", va="bottom", fontsize=8.5)
        axes.text(low * 2, bandwidth * low / 1e9, f"copies: {copies}", ha="left", va="bottom", fontsize=8.5)
        markers = "osD^vP*X"
        points = []
        for c in timed:
            stage, rate_reached = stages.index(c.component.rpartition("/")[0]), _total(c) / (c.seconds or 1.0) / 1e9
            points += axes.plot(
                _intensity(c),
                rate_reached,
                markers[stage % len(markers)],
                color=colour_of(c.component),
                markersize=6,
                linestyle="none",
            )
        plain_log(axes, "x")
        plain_log(axes, "y")
        axes.margins(y=0.14)
        axes.set_xlabel("intensity, FLOP per byte, counted")
        axes.set_ylabel("GFLOP/s, measured")
        axes.grid()
        legend_below(figure, points, [c.component for c in timed], columns=2)
    return canvas.svg


def _floors(predictions: Sequence[Prediction]) -> str:
    ordered = sorted(predictions, key=lambda p: p.likely)
    canvas = Canvas(0.75 + 0.3 * len(ordered))
    with canvas as (figure, (axes,)):
        for place, p in enumerate(ordered):
            likely = axes.barh(place, p.likely, 0.66, color=series(1), alpha=0.3)
            floor = axes.barh(place, p.floor, 0.66, color=series(1))
            beside(axes, f"{digits(p.floor)} to {digits(p.likely)} s", p.likely, place)
        names = [f"{label(p.gpu, 22)}, {p.accumulation}" for p in ordered]
        axes.set_yticks(range(len(ordered)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(ordered) - 0.5, -0.5)
        axes.set_xlim(0, 1.5 * max(p.likely for p in ordered))
        axes.set_xlabel("seconds per frame, predicted")
        axes.grid(axis="x")
        legend_below(figure, [floor, likely], ["at least (predicted)", "likely (predicted)"])
    return canvas.svg
