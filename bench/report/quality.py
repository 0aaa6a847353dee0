"""Quality against time in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .. import statistics
from ..schema import Preset, Quality
from ..wording import DASH, describe_executed, describe_work, per_frame, percent, plural, seconds
from .document import Figure, Section, Table
from .drawing import INK, MUTED, Canvas, label, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[str, float, float]
"""A preset's name, seconds per clip and share."""


def section(found: Sequence[Quality]) -> Section:
    """Every quality measurement of a results file."""
    tables, figures, notes = [], [], []
    for index, m in enumerate(found, 1):
        which = f"{m.executed.backend}, {m.executed.device}" + (f", {index}" if len(found) > 1 else "")
        tables.append(_table(which, m))
        notes.append(f"{which}: {describe_executed(m.executed)}.")
        notes += [f"Preset {p.name}: {describe_work(p.work)}." for p in m.presets]
        panels = {"mIoU": _points(m.presets, "miou"), "mIoU_occ": _points(m.presets, "miou_occ")}
        panels = {measure: points for measure, points in panels.items() if points}
        if panels:
            figures.append(
                Figure(
                    f"Quality against time: {which}",
                    f"Presets over {plural(m.scenes, 'scene')}. On the line: those that no other beats in both. "
                    "Dashed: baselines that need no model.",
                    " ".join(
                        f"{measure}: " + "; ".join(f"{n} {percent(q)} at {seconds(s)}" for n, s, q in points) + "."
                        for measure, points in panels.items()
                    ),
                    partial(_pareto, panels, m.baselines),
                )
            )
    return Section(
        "quality",
        "Quality",
        "Masks against the truth of unseen scenes, strict mode: every frame with hidden parts counts, a miss as 0. "
        "mIoU_occ is that of the hidden parts alone.",
        [],
        tables,
        figures,
        notes,
    )


def _points(presets: Sequence[Preset], measure: str) -> list[Point]:
    found = []
    for preset in presets:
        summary, value = statistics.summarise(preset.seconds), getattr(preset, measure)
        if summary is not None and value is not None:
            found.append((preset.name, summary.median, float(value)))
    return found


def frontier(points: Sequence[Point]) -> set[str]:
    """Names of the presets that no other beats in both time and quality."""
    return {points[i][0] for i in statistics.pareto([(s, q) for _, s, q in points])}


def _table(which: str, m: Quality) -> Table:
    best = frontier(_points(m.presets, "miou"))
    rows = []
    for preset in m.presets:
        summary = statistics.summarise(preset.seconds)
        rows.append(
            [
                preset.name,
                percent(preset.miou, 2),
                percent(preset.miou_occ, 2),
                percent(preset.flicker, 2),
                seconds(summary.median if summary else None),
                per_frame(summary.median, preset.work) if summary else DASH,
                "yes" if preset.name in best else "no",
            ]
        )
    for name in dict.fromkeys(key.removesuffix(" mIoU_occ").removesuffix(" mIoU") for key in m.baselines):
        shares = [m.baselines.get(f"{name} {measure}") for measure in ("mIoU", "mIoU_occ")]
        rows.append([f"baseline: {name}", *(percent(share, 2) for share in shares), *[DASH] * 4])
    head = ["preset", "mIoU", "mIoU_occ", "flicker", "clip, median", "s/frame", "unbeaten"]
    return Table(f"{which}: presets over {plural(m.scenes, 'scene')}; of flicker, less is better.", head, rows)


def _pareto(panels: dict[str, list[Point]], baselines: dict[str, float]) -> str:
    canvas = Canvas(2.55 * len(panels) + 0.2, rows=len(panels))
    with canvas as (_, every):
        for axes, (measure, points) in zip(every, panels.items(), strict=True):
            _panel(axes, measure, points, baselines)
        every[-1].set_xlabel("seconds per clip, median, measured")
    return canvas.svg


def _panel(axes: Axes, measure: str, points: Sequence[Point], baselines: dict[str, float]) -> None:
    best = sorted((s, q) for name, s, q in points if name in frontier(points))
    axes.plot([s for s, _ in best], [100 * q for _, q in best], color=series(0), linewidth=1.2, zorder=1)
    for name, s, q in points:
        on = name in frontier(points)
        axes.plot(s, 100 * q, "o", color=series(0) if on else MUTED, markersize=5 if on else 4)
    longest = max(s for _, s, _ in points)
    for name, s, q in points:
        right = s > 0.7 * longest
        axes.annotate(
            label(name, 24),
            (s, 100 * q),
            (-6 if right else 6, -10),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8.5,
            color=INK if name in frontier(points) else MUTED,
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
