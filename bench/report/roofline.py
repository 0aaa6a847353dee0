"""Roofline and predictions in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np

from ..schema import Ceilings, ComponentCost, Prediction, Roofline
from ..wording import DASH, describe_executed, describe_work, digits, in_bytes, operations, percent, seconds
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
        if timed:
            figures.append(
                Figure(
                    "Roofline of this machine",
                    "Across: products per byte of weights, inputs and outputs, counted from the graphs; the line "
                    "to the left ends where every operator would go through memory. Up: products per second reached, "
                    "measured. The roof is what this machine reaches in matrix products and copies, measured.",
                    "; ".join(
                        f"{c.component} reached {operations(c.products / (c.seconds or 1), 'FLOP/s')}" for c in timed
                    )
                    + f". Ceiling {operations(m.ceilings.rate, 'FLOP/s')}.",
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
        "two operations.",
        [text for m in found for text in m.warnings],
        tables,
        figures,
        notes,
    )


def reached(m: Roofline) -> float | None:
    """Share of the ceiling that the components that were run reach together; None if none was."""
    timed = [c for c in m.components if c.seconds]
    if not timed:
        return None
    return sum(c.products for c in timed) / sum(c.seconds or 0.0 for c in timed) / m.ceilings.rate


def _flops(value: float) -> str:
    return operations(value, "FLOP/s")


def _copies(value: float) -> str:
    return f"{in_bytes(value)}/s"


def _intensity(cost: ComponentCost) -> float:
    """Products per byte that no fusion saves, as `ComponentCost.floor` has it."""
    moved = cost.weights + cost.boundary
    return cost.products / moved if moved else 0.0


def _unfused(cost: ComponentCost) -> float:
    """Products per byte if every operator reads and writes memory."""
    moved = cost.weights + cost.activations
    return cost.products / moved if moved else 0.0


def _counted(m: Roofline) -> Table:
    kinds = list(dict.fromkeys(kind for c in m.components for kind in c.flops))
    rows = [
        [
            c.component,
            c.precision,
            str(c.calls),
            operations(sum(c.flops.values())),
            *(operations(c.flops.get(kind, 0.0)) for kind in kinds),
            in_bytes(c.weights),
            in_bytes(c.activations),
            in_bytes(c.boundary),
        ]
        for c in m.components
    ]
    head = ["component", "arithmetic", "calls", "operations", *kinds, "weights", "activations", "inputs and outputs"]
    caption = (
        "Of one clip, all calls together, counted from the graphs. Activations: if every operator reads and writes "
        "memory; inputs and outputs are the part that no fusion saves."
    )
    return Table(caption, head, rows, "counted", 2)


def _reached(m: Roofline) -> Table:
    rows = []
    for c in m.components:
        rate = c.products / c.seconds if c.seconds else None
        least = c.floor(m.ceilings.rate, m.ceilings.copies)
        rows.append(
            [
                c.component,
                seconds(c.seconds) if c.seconds is not None else "not run",
                seconds(least),
                percent(least / c.seconds if c.seconds else None),
                operations(rate, "FLOP/s"),
                percent(rate / m.ceilings.rate if rate is not None else None),
                f"{digits(_intensity(c))} FLOP/B" if _intensity(c) else DASH,
            ]
        )
    head = ["component", "per clip (measured)", "least (predicted)", "share", "reached", "of the ceiling", "intensity"]
    caption = (
        "What this machine would take at the least, at its ceilings, beside what it took. Rates are of matrix products "
        "and convolutions; intensity is these per byte of weights, inputs and outputs."
    )
    return Table(caption, head, rows)


def _ceilings(ceilings: Ceilings) -> Table:
    rows = []
    for name, values, text in (
        (f"matrix products, {ceilings.precision}", ceilings.flops, _flops),
        ("copies", ceilings.bandwidth, _copies),
    ):
        rows.append([name, text(median(values)), text(min(values)), text(max(values)), str(len(values))])
    caption = f"Ceilings of this machine: {ceilings.library}, square matrices of {ceilings.side}."
    return Table(caption, ["ceiling", "median", "lowest", "highest", "samples"], rows)


def _predicted(predictions: Sequence[Prediction]) -> Table:
    rows = [
        [
            p.gpu,
            p.accumulation,
            f"{digits(p.floor)} s",
            f"{digits(p.likely)} s (at {percent(p.likely_share, 0)})",
            _flops(p.rate),
            _flops(p.rate_single),
            _copies(p.bandwidth),
            in_bytes(p.vram),
            *([_memory(p)] if _any_planned(predictions) else []),
            p.source,
        ]
        for p in predictions
    ]
    head = ["GPU", "sums", "s/frame, least", "s/frame, likely", "FP16", "TF32", "bandwidth", "VRAM"]
    head += ["needs", "source of the rates"] if _any_planned(predictions) else ["source of the rates"]
    caption = (
        "Seconds per frame of a run with engines by GPU, from published dense rates with sums in fp32 or fp16; nothing "
        "here was measured."
    )
    return Table(caption, head, rows, "predicted", 2)


def _any_planned(predictions: Sequence[Prediction]) -> bool:
    return any(p.planned is not None for p in predictions)


def _memory(p: Prediction) -> str:
    if p.planned is None:
        return DASH
    return f"{in_bytes(p.planned)}, {p.way}: {'fits' if p.fits else 'does not fit'}"


def _roof(ceilings: Ceilings, timed: Sequence[ComponentCost]) -> str:
    flops, bandwidth = ceilings.rate, ceilings.copies
    intensities = [x for c in timed for x in (_intensity(c), _unfused(c)) if x] + [flops / bandwidth]
    low, high = min(intensities) / 4, max(intensities) * 4
    stages = list(dict.fromkeys(c.component.rpartition("/")[0] for c in timed))
    canvas = Canvas(2.9 + 0.18 * -(-len(timed) // 2))
    with canvas as (figure, (axes,)):
        x = np.geomspace(low, high, 200)
        axes.plot(x, np.minimum(flops, bandwidth * x) / 1e9, color=INK, linewidth=1.6)
        axes.text(high, flops / 1e9 * 1.12, f"products: {_flops(flops)}", ha="right", va="bottom", fontsize=8.5)
        axes.text(low * 2, bandwidth * low / 1e9, f"copies: {_copies(bandwidth)}", ha="left", va="bottom", fontsize=8.5)
        markers = "osD^vP*X"
        points = []
        for c in timed:
            stage, rate = stages.index(c.component.rpartition("/")[0]), c.products / (c.seconds or 1.0) / 1e9
            marker, colour = markers[stage % len(markers)], colour_of(c.component)
            if _unfused(c):
                axes.plot([_unfused(c), _intensity(c)], [rate, rate], color=colour, linewidth=1, alpha=0.6)
            points += axes.plot(_intensity(c), rate, marker, color=colour, markersize=6, linestyle="none")
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
    # A bundle in float32 takes the same with either kind of sums.
    bars: dict[tuple[str, float, float], list[str]] = {}
    for p in ordered:
        bars.setdefault((p.gpu, p.floor, p.likely), []).append(p.accumulation)
    canvas = Canvas(0.75 + 0.27 * len(bars))
    with canvas as (figure, (axes,)):
        for place, (_, least, most) in enumerate(bars):
            likely = axes.barh(place, most, 0.66, color=series(1), alpha=0.3)
            floor = axes.barh(place, least, 0.66, color=series(1))
            beside(axes, f"{seconds(least)} to {seconds(most)}", most, place)
        names = [f"{label(gpu, 22)}, {' or '.join(sums)}" for (gpu, _, _), sums in bars.items()]
        axes.set_yticks(range(len(bars)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, 1.65 * max(most for _, _, most in bars))
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("seconds per frame, predicted")
        axes.grid(axis="x")
        legend_below(figure, [floor, likely], ["at least (predicted)", "likely (predicted)"])
    return canvas.svg
