"""Memory in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.families.diffusion_vas.calls import PHASE_ROLES

from ..schema import Memory, Span, Timeline
from ..wording import DASH, describe_executed, describe_work, distinct_names, in_bytes, percent, seconds
from .document import Figure, Section, Table
from .drawing import INK, MUTED, Canvas, label, legend_below, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

_GB = 1e9
_BUCKETS = 400


def section(found: Sequence[Memory]) -> Section:
    """Every memory measurement of a results file."""
    names = distinct_names([(m.work, m.executed) for m in found])
    named = list(zip(names, found, strict=True))
    tables = [_peaks(named)]
    figures = []
    for name, m in named:
        if m.planned:
            tables.append(_plan(name, m))
        if m.host.bytes or any(t.bytes for t in m.device.values()):
            figures.append(
                Figure(
                    f"Memory over time: {name}",
                    "Sampled while running; every peak is kept. Shaded: the phases. Dashed: what the plan predicted.",
                    f"Memory of {name} over time. Peak on the host {in_bytes(m.host_peak)}. Phases: "
                    + "; ".join(f"{p.name} from {seconds(p.begin)} to {seconds(p.end)}" for p in m.phases)
                    + ".",
                    partial(_timeline, m),
                )
            )
    return Section(
        "memory",
        "Memory",
        "Resident memory of the process and, on a GPU, what NVML saw, sampled during a clip. GB is a billion bytes.",
        [f"{name}: {text}" for name, m in named for text in m.warnings],
        tables,
        figures,
        [f"{name}: {describe_work(m.work)}; {describe_executed(m.executed)}." for name, m in named],
    )


def device_peaks(m: Memory) -> dict[str, int]:
    """The highest that NVML saw, of `process` and `device`; only what was sampled."""
    return {name: max(t.bytes) for name, t in m.device.items() if t.bytes}


def spans_of(m: Memory, planned: str) -> list[Span]:
    """When a phase of the plan ran: by its own name, or as the components that run in it (`segment/unet`)."""
    stage, _, phase = planned.rpartition("/")
    names = {planned, *(f"{stage}/{kind}" for kind in PHASE_ROLES.get(phase, ()))}
    return [span for span in m.phases if span.name in names]


def _peaks(named: Sequence[tuple[str, Memory]]) -> Table:
    allocators = list(dict.fromkeys(a for _, m in named for a in m.allocators))
    devices = list(dict.fromkeys(d for _, m in named for d in m.device))
    rows = []
    for name, m in named:
        peaks = device_peaks(m)
        rows.append(
            [
                name,
                in_bytes(m.host_peak),
                in_bytes(m.host_before),
                in_bytes(m.host_peak - m.host_before),
                *(in_bytes(peaks.get(d)) for d in devices),
                *(in_bytes(m.allocators.get(a)) for a in allocators),
            ]
        )
    head = ["run", "host peak", "before opening", "added"]
    return Table(
        "Peaks. The host's is the kernel's own count; before opening, libraries were imported already.",
        [*head, *(f"GPU, {d}" for d in devices), *allocators],
        rows,
    )


def _plan(name: str, m: Memory) -> Table:
    """The plan is of the device's memory, so that is what stands beside it."""
    process = m.device.get("process")
    rows = []
    for phase, planned in m.planned.items():
        seen = None
        if process is not None:
            spans = spans_of(m, phase)
            pairs = list(zip(process.seconds, process.bytes, strict=False))
            seen = max((b for span in spans for s, b in pairs if span.begin <= s <= span.end), default=None)
        share = None if seen is None or not planned else seen / planned
        rows.append([phase, in_bytes(planned), in_bytes(seen), percent(share, 0) if share is not None else DASH])
    return Table(
        f"{name}: the plan, predicted before loading, beside the peak of the process that was measured.",
        ["phase", "planned (predicted)", "seen (measured)", "seen of planned"],
        rows,
        "predicted",
    )


def _thinned(timeline: Timeline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most two samples a bucket, its lowest and highest, so that no peak is lost."""
    count = min(len(timeline.seconds), len(timeline.bytes))
    times, values = np.array(timeline.seconds[:count]), np.array(timeline.bytes[:count], np.float64) / _GB
    if count <= 2 * _BUCKETS:
        return times, values
    kept = [0, count - 1]
    for part in np.array_split(np.arange(count), _BUCKETS):
        kept += [int(part[values[part].argmin()]), int(part[values[part].argmax()])]
    index = np.unique(kept)
    return times[index], values[index]


def _timeline(m: Memory) -> str:
    canvas = Canvas(3.3)
    with canvas as (figure, (axes,)):
        draw_timeline(figure, axes, m)
    return canvas.svg


def draw_timeline(figure: MplFigure, axes: Axes, m: Memory) -> None:
    """Draws what was sampled, the phases and, dashed, the plan."""
    lines: dict[str, Any] = {}
    if m.host.bytes:
        (lines["host, this process"],) = axes.plot(*_thinned(m.host), color=series(0))
    for index, (name, timeline) in enumerate(m.device.items()):
        if timeline.bytes:
            (lines[f"GPU, {name}"],) = axes.plot(*_thinned(timeline), color=series(index + 1))
    lines["host peak"] = axes.axhline(m.host_peak / _GB, color=series(0), linewidth=0.8, linestyle=":")
    for name, planned in m.planned.items():
        for span in spans_of(m, name):
            (lines["planned (predicted)"],) = axes.plot(
                [span.begin, span.end], [planned / _GB] * 2, color=INK, linestyle="--", linewidth=1.6
            )
    axes.set_ylim(0, axes.get_ylim()[1] * 1.7)
    length = max([p.end for p in m.phases] + m.host.seconds[-1:])
    for index, phase in enumerate(m.phases):
        axes.axvspan(phase.begin, phase.end, color=MUTED, alpha=0.16 if index % 2 else 0.07, linewidth=0)
        if phase.end - phase.begin > 0.035 * length:
            middle, top = (phase.begin + phase.end) / 2, axes.get_ylim()[1]
            wide = phase.end - phase.begin > 0.3 * length
            axes.text(
                middle,
                0.97 * top,
                label(phase.name, 22),
                rotation=0 if wide else 90,
                ha="center",
                va="top",
                fontsize=7.5,
                color=MUTED,
            )
    axes.set_xlabel("seconds from the first sample")
    axes.set_ylabel("GB, measured")
    axes.grid(axis="y")
    axes.margins(x=0.01)
    legend_below(figure, list(lines.values()), list(lines))
