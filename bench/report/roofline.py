"""Roofline and predictions in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np

from ..schema import Ceilings, ComponentCost, Prediction, Roofline, fill_a_gpu
from ..wording import DASH, describe_executed, describe_work, digits, in_bytes, percent, scaled, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import INK, Canvas, component_colour, label, legend_below, log_scale, series


def content(found: Sequence[Roofline]) -> Content:
    """The roofline section: tables, figures, notes and warnings."""
    tables, figures, notes = [], [], []
    for m in found:
        tables += [_counted(m), _reached(m), _ceilings(m.ceilings)]
        executed = describe_executed(m.executed) if m.executed else "nothing was executed"
        notes.append(f"{describe_work(m.work)}; {executed}.")
        if not m.predictions and not fill_a_gpu(m.components):
            notes.append("No time on a GPU is predicted: networks this small would not fill one.")
        timed = [c for c in m.components if _intensity(c) and c.seconds]
        if timed:
            words = [f"{c.component} reached {scaled(c.products / (c.seconds or 1), 'FLOP/s')}" for c in timed]
            figures.append(
                Figure(
                    "Roofline of this machine",
                    "Across: products per byte of weights, inputs and outputs, counted from the graphs; the line to "
                    "the left ends where it would be if every operator read and wrote memory. Up: products per second, "
                    "measured. The roof is this machine's rate of matrix products and copies, measured.",
                    f"{'; '.join(words)}. Ceiling {scaled(m.ceilings.rate, 'FLOP/s')}.",
                    partial(_plot_roofline, m.ceilings, timed),
                )
            )
        if m.predictions:
            tables.append(_predicted(m.predictions))
            words = [f"{p.gpu}, {p.accumulation}: at least {seconds(p.floor)}" for p in m.predictions]
            figures.append(
                Figure(
                    "Predicted time on GPUs",
                    "Predicted, not measured: the least seconds per frame at the full published rate, and the likely "
                    "ones at the share of it given in the table.",
                    f"Predicted seconds per frame. {'; '.join(words)}.",
                    partial(_plot_predictions, m.predictions),
                    "predicted",
                )
            )
    return tables, figures, notes, [text for m in found for text in m.warnings]


def reached(m: Roofline) -> float | None:
    """Share of the ceiling reached by all components that ran, together; None if none did."""
    timed = [c for c in m.components if c.seconds]
    if not timed:
        return None
    return sum(c.products for c in timed) / sum(c.seconds or 0.0 for c in timed) / m.ceilings.rate


def _intensity(cost: ComponentCost, fused: bool = True) -> float:
    """Products per byte that fusion cannot save (see `ComponentCost.floor`), or per byte without any fusion."""
    transferred = cost.weights + (cost.boundary if fused else cost.activations)
    return cost.products / transferred if transferred else 0.0


def _counted(m: Roofline) -> Table:
    kinds = list(dict.fromkeys(kind for c in m.components for kind in c.flops))
    rows = [
        {
            "component": c.component,
            "arithmetic": c.precision,
            "calls": str(c.calls),
            "operations": scaled(sum(c.flops.values())),
            **{kind: scaled(c.flops.get(kind, 0.0)) for kind in kinds},
            "weights": in_bytes(c.weights),
            "activations": in_bytes(c.activations),
            "inputs and outputs": in_bytes(c.boundary),
        }
        for c in m.components
    ]
    caption = (
        "One clip, all calls together, counted from the graphs. Activations: if every operator reads and writes "
        "memory; fusion cannot save the inputs and outputs."
    )
    return tabulate(caption, rows, "counted", 2)


def _reached(m: Roofline) -> Table:
    rows = []
    for c in m.components:
        least = c.floor(m.ceilings.rate, m.ceilings.copies)
        rows.append(
            {
                "component": c.component,
                "per clip (measured)": seconds(c.seconds) if c.seconds is not None else "not run",
                "least (predicted)": seconds(least),
                "share": percent(least / c.seconds if c.seconds else None),
                "reached": scaled(c.products / c.seconds if c.seconds else None, "FLOP/s"),
                "of the ceiling": percent(c.share_of(m.ceilings)),
                "intensity": f"{digits(_intensity(c))} FLOP/B" if _intensity(c) else DASH,
            }
        )
    caption = (
        "Least time at this machine's ceilings, and the time measured. Rates are of matrix products and convolutions; "
        "intensity is products per byte of weights, inputs and outputs."
    )
    return tabulate(caption, rows)


def _ceilings(ceilings: Ceilings) -> Table:
    rows = []
    for name, values, unit in (
        (f"matrix products, {ceilings.precision}", ceilings.flops, "FLOP/s"),
        ("copies", ceilings.bandwidth, "B/s"),
    ):
        of_all = {"median": median(values), "lowest": min(values), "highest": max(values)}
        cells = {head: scaled(value, unit) for head, value in of_all.items()}
        rows.append({"ceiling": name, **cells, "samples": str(len(values))})
    return tabulate(f"Ceilings of this machine: {ceilings.library}, square matrices of {ceilings.side}.", rows)


def _predicted(predictions: Sequence[Prediction]) -> Table:
    planned = any(p.planned is not None for p in predictions)
    rows = [
        {
            "GPU": p.gpu,
            "sums": p.accumulation,
            "s/frame, least": f"{digits(p.floor)} s",
            "s/frame, likely": f"{digits(p.likely)} s (at {percent(p.likely_share, 0)})",
            "FP16": scaled(p.rate, "FLOP/s"),
            "TF32": scaled(p.rate_single, "FLOP/s"),
            "bandwidth": scaled(p.bandwidth, "B/s"),
            "VRAM": in_bytes(p.vram),
            **({"needs": _memory(p)} if planned else {}),
            "source of the rates": p.source,
        }
        for p in predictions
    ]
    caption = (
        "Predicted seconds per frame of a run with engines, from published dense rates with sums in fp32 or fp16; "
        "nothing here was measured."
    )
    return tabulate(caption, rows, "predicted", 2)


def _memory(p: Prediction) -> str:
    text = f"{in_bytes(p.planned)}, {p.way}: {'fits' if p.fits else 'does not fit'}"
    return DASH if p.planned is None else text


def _plot_roofline(ceilings: Ceilings, timed: Sequence[ComponentCost], canvas: Canvas) -> None:
    flops, bandwidth = ceilings.rate, ceilings.copies
    intensities = [(_intensity(c, fused=False), _intensity(c)) for c in timed]
    shown = [x for pair in intensities for x in pair if x] + [flops / bandwidth]
    low, high = min(shown) / 4, max(shown) * 4
    canvas.set_figheight(2.9 + 0.18 * -(-len(timed) // 2))
    axes = canvas.subplots()
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(flops, bandwidth * x) / 1e9, color=INK, linewidth=1.6)
    products, copies = f"products: {scaled(flops, 'FLOP/s')}", f"copies: {scaled(bandwidth, 'B/s')}"
    axes.text(high, flops / 1e9 * 1.12, products, ha="right", va="bottom", fontsize=8.5)
    axes.text(low * 2, bandwidth * low / 1e9, copies, ha="left", va="bottom", fontsize=8.5)
    stages = list(dict.fromkeys(c.component.rpartition("/")[0] for c in timed))
    markers = "osD^vP*X"
    points = []
    for c, (unfused, intensity) in zip(timed, intensities, strict=True):
        stage, rate = stages.index(c.component.rpartition("/")[0]), c.products / (c.seconds or 1.0) / 1e9
        marker, colour = markers[stage % len(markers)], component_colour(c.component)
        if unfused:
            axes.plot([unfused, intensity], [rate, rate], color=colour, linewidth=1, alpha=0.6)
        points += axes.plot(intensity, rate, marker, color=colour, markersize=6, linestyle="none")
    log_scale(axes, "x")
    log_scale(axes, "y")
    axes.margins(y=0.14)
    axes.set(xlabel="intensity, FLOP per byte, counted", ylabel="GFLOP/s, measured")
    axes.grid()
    legend_below(canvas, points, [c.component for c in timed], columns=2)


def _plot_predictions(predictions: Sequence[Prediction], canvas: Canvas) -> None:
    # With a float32 bundle both kinds of sums have the same time, and share a bar.
    bars: dict[tuple[str, float, float], list[str]] = {}
    for p in sorted(predictions, key=lambda p: p.likely):
        bars.setdefault((p.gpu, p.floor, p.likely), []).append(p.accumulation)
    canvas.set_figheight(0.75 + 0.27 * len(bars))
    axes = canvas.subplots()
    for place, (_, least, most) in enumerate(bars):
        likely = axes.barh(place, most, 0.66, color=series(1), alpha=0.3)
        floor = axes.barh(place, least, 0.66, color=series(1))
        axes.bar_label(likely, [f"{seconds(least)} to {seconds(most)}"], padding=4, fontsize=8.5)
    names = [f"{label(gpu, 22)}, {' or '.join(sums)}" for (gpu, _, _), sums in bars.items()]
    axes.set_yticks(range(len(bars)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.65 * max(most for _, _, most in bars))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("seconds per frame, predicted")
    axes.grid(axis="x")
    legend_below(canvas, [floor, likely], ["at least (predicted)", "likely (predicted)"])
