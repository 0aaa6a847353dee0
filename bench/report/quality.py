"""Quality and time in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .. import statistics
from ..schema import Preset, Quality
from ..wording import DASH, describe_executed, describe_work, per_frame, percent, plural, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import INK, MUTED, Axes, Canvas, label, series

Point = tuple[str, float, float]
"""A preset's name, seconds per clip and share."""


def content(found: Sequence[Quality]) -> Content:
    """The quality section: tables, figures, notes and warnings."""
    tables, figures, notes = [], [], []
    for index, m in enumerate(found, 1):
        which = f"{m.executed.backend}, {m.executed.device}" + (f", {index}" if len(found) > 1 else "")
        tables.append(_table(which, m))
        notes.append(f"{which}: {describe_executed(m.executed)}.")
        notes += [f"Preset {p.name}: {describe_work(p.work)}." for p in m.presets]
        panels = {"mIoU": _points(m.presets, "miou"), "mIoU_occ": _points(m.presets, "miou_occ")}
        panels = {measure: points for measure, points in panels.items() if points}
        words = [
            f"{measure}: " + "; ".join(f"{n} {percent(q)} at {seconds(s)}" for n, s, q in points) + "."
            for measure, points in panels.items()
        ]
        if panels:
            figures.append(
                Figure(
                    f"Quality and time: {which}",
                    f"Presets over {plural(m.scenes, 'scene')}. On the line: presets that no other beats in both. "
                    "Dashed: baselines that need no model.",
                    " ".join(words),
                    partial(_plot, panels, m.baselines),
                )
            )
    return tables, figures, notes, []


def _points(presets: Sequence[Preset], measure: str) -> list[Point]:
    found = [(p.name, statistics.median_of(p.seconds), getattr(p, measure)) for p in presets]
    return [(name, time, value) for name, time, value in found if time is not None and value is not None]


def _frontier(points: Sequence[Point]) -> set[str]:
    """Names of the presets that no other beats in both time and quality."""
    return {points[i][0] for i in statistics.pareto([(s, q) for _, s, q in points])}


def _table(which: str, m: Quality) -> Table:
    best = _frontier(_points(m.presets, "miou"))
    rows = []
    for preset in m.presets:
        clip = statistics.median_of(preset.seconds)
        rows.append(
            {
                "preset": preset.name,
                "mIoU": percent(preset.miou, 2),
                "mIoU_occ": percent(preset.miou_occ, 2),
                "flicker": percent(preset.flicker, 2),
                "clip, median": seconds(clip),
                "s/frame": per_frame(clip, preset.work),
                "unbeaten": "yes" if preset.name in best else "no",
            }
        )
    for name in dict.fromkeys(key.removesuffix(" mIoU_occ").removesuffix(" mIoU") for key in m.baselines):
        shares = {measure: percent(m.baselines.get(f"{name} {measure}"), 2) for measure in ("mIoU", "mIoU_occ")}
        none = dict.fromkeys(("flicker", "clip, median", "s/frame", "unbeaten"), DASH)
        rows.append({"preset": f"baseline: {name}", **shares, **none})
    return tabulate(f"{which}: presets over {plural(m.scenes, 'scene')}; less flicker is better.", rows)


def _plot(panels: dict[str, list[Point]], baselines: dict[str, float], canvas: Canvas) -> None:
    canvas.set_figheight(2.55 * len(panels) + 0.2)
    every = canvas.subplots(len(panels), squeeze=False)[:, 0]
    for axes, (measure, points) in zip(every, panels.items(), strict=True):
        _plot_panel(axes, measure, points, baselines)
    every[-1].set_xlabel("seconds per clip, median, measured")


def _plot_panel(axes: Axes, measure: str, points: Sequence[Point], baselines: dict[str, float]) -> None:
    frontier, longest = _frontier(points), max(s for _, s, _ in points)
    best = sorted((s, q) for name, s, q in points if name in frontier)
    axes.plot([s for s, _ in best], [100 * q for _, q in best], color=series(0), linewidth=1.2, zorder=1)
    for name, s, q in points:
        on, right = name in frontier, s > 0.7 * longest
        axes.plot(s, 100 * q, "o", color=series(0) if on else MUTED, markersize=5 if on else 4)
        axes.annotate(
            label(name, 24),
            (s, 100 * q),
            (-6 if right else 6, -10),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8.5,
            color=INK if on else MUTED,
        )
    for name, value in baselines.items():
        if name.endswith(f" {measure}"):
            axes.axhline(100 * value, color=MUTED, linewidth=0.8, linestyle="--")
            words = label(name.removesuffix(f" {measure}"), 24)
            axes.text(longest, 100 * value, words, fontsize=8, color=MUTED, va="bottom", ha="right")
    axes.set_xlim(0, 1.06 * longest)
    axes.margins(y=0.18)
    axes.set_ylabel(f"{measure}, %, measured")
    axes.grid()
