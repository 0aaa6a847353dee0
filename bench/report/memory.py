"""Memory in the report, and as a picture of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError, OutputError
from amodal.runtime.families.diffusion_vas.calls import PHASE_ROLES
from amodal.runtime.paths import PathLike

from ..schema import Memory, Span, Timeline
from ..wording import describe_runs, in_bytes, name_runs, percent, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import INK, MUTED, PAPER, Canvas, label, legend_below, require_libraries, series, styled_canvas

_GB = 1e9
_BUCKETS = 400


def content(found: Sequence[Memory]) -> Content:
    """The memory section: tables, figures, notes and warnings."""
    named = name_runs(found)
    figures = [
        Figure(
            f"Memory over time: {name}",
            "Sampled during a run; every peak is kept. Shaded: the phases. Dashed: the plan's prediction.",
            f"Memory of {name} over time. Peak on the host {in_bytes(m.host_peak)}. Phases: "
            + "; ".join(f"{p.name} from {seconds(p.begin)} to {seconds(p.end)}" for p in m.phases)
            + ".",
            partial(_plot_timeline, m),
        )
        for name, m in named
        if m.host.bytes or device_peaks(m)
    ]
    tables = [_peaks(named), *(_plan(name, m) for name, m in named if m.planned)]
    warnings = [f"{name}: {text}" for name, m in named for text in m.warnings]
    return tables, figures, describe_runs(named), warnings


def device_peaks(m: Memory) -> dict[str, int]:
    """Peaks reported by NVML for `process` and `device`, as far as they were sampled."""
    return {name: max(t.bytes) for name, t in m.device.items() if t.bytes}


def _phase_spans(m: Memory, planned: str) -> list[Span]:
    """When a phase of the plan ran: by its own name, or by the components that run in it (`segment/unet`)."""
    stage, _, phase = planned.rpartition("/")
    names = {planned, *(f"{stage}/{kind}" for kind in PHASE_ROLES.get(phase, ()))}
    return [span for span in m.phases if span.name in names]


def _peaks(named: Sequence[tuple[str, Memory]]) -> Table:
    allocators = list(dict.fromkeys(a for _, m in named for a in m.allocators))
    devices = list(dict.fromkeys(d for _, m in named for d in m.device))
    rows = [
        {
            "run": name,
            "host peak": in_bytes(m.host_peak),
            "before opening": in_bytes(m.host_before),
            "added": in_bytes(m.host_peak - m.host_before),
            **{f"GPU, {d}": in_bytes(device_peaks(m).get(d)) for d in devices},
            **{a: in_bytes(m.allocators.get(a)) for a in allocators},
        }
        for name, m in named
    ]
    caption = "Peaks. The host's is counted by the kernel; before opening, libraries were already imported."
    return tabulate(caption, rows)


def _plan(name: str, m: Memory) -> Table:
    """Planned memory of the device next to the peak of the process on it."""
    process = m.device.get("process", Timeline(seconds=[], bytes=[]))
    samples = list(zip(process.seconds, process.bytes, strict=False))
    rows = []
    for phase, planned in m.planned.items():
        spans = _phase_spans(m, phase)
        peak = max((b for span in spans for s, b in samples if span.begin <= s <= span.end), default=None)
        share = percent(None if peak is None or not planned else peak / planned, 0)
        cells = {"planned (predicted)": in_bytes(planned), "peak (measured)": in_bytes(peak)}
        rows.append({"phase": phase, **cells, "measured/planned": share})
    caption = f"{name}: the plan's prediction, made before loading, and the measured peak of the process."
    return tabulate(caption, rows, "predicted")


def _thinned(timeline: Timeline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds and GB, at most two samples a bucket, its lowest and highest, so that no peak is lost."""
    count = min(len(timeline.seconds), len(timeline.bytes))
    times, values = np.array(timeline.seconds[:count]), np.array(timeline.bytes[:count], np.float64) / _GB
    if count <= 2 * _BUCKETS:
        return times, values
    parts = np.array_split(np.arange(count), _BUCKETS)
    extremes = [part[pick(values[part])] for part in parts for pick in (np.argmin, np.argmax)]
    index = np.unique([0, count - 1, *extremes])
    return times[index], values[index]


def _plot_timeline(m: Memory, canvas: Canvas) -> None:
    canvas.set_figheight(3.3)
    axes = canvas.subplots()
    lines: dict[str, Any] = {}
    timelines = {"host, this process": m.host, **{f"GPU, {name}": t for name, t in m.device.items()}}
    for index, (name, timeline) in enumerate(timelines.items()):
        if timeline.bytes:
            (lines[name],) = axes.plot(*_thinned(timeline), color=series(index))
    lines["host peak"] = axes.axhline(m.host_peak / _GB, color=series(0), linewidth=0.8, linestyle=":")
    for name, planned in m.planned.items():
        for span in _phase_spans(m, name):
            (lines["planned (predicted)"],) = axes.plot(
                [span.begin, span.end], [planned / _GB] * 2, color=INK, linestyle="--", linewidth=1.6
            )
    top = axes.get_ylim()[1] * 1.7
    axes.set_ylim(0, top)
    length = max([p.end for p in m.phases] + m.host.seconds[-1:], default=0.0)
    for index, phase in enumerate(m.phases):
        axes.axvspan(phase.begin, phase.end, color=MUTED, alpha=0.16 if index % 2 else 0.07, linewidth=0)
        width, middle = phase.end - phase.begin, (phase.begin + phase.end) / 2
        if width > 0.035 * length:
            style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7.5, "color": MUTED}
            axes.text(middle, 0.97 * top, label(phase.name, 22), rotation=0 if width > 0.3 * length else 90, **style)
    axes.set(xlabel="seconds from the first sample", ylabel="GB, measured")
    axes.grid(axis="y")
    axes.margins(x=0.01)
    legend_below(canvas, list(lines.values()), list(lines))


def check_picture(path: PathLike) -> Path:
    """Raises `InputError` unless the name ends in .png or .svg, and `MissingDependencyError` without matplotlib.

    Called before the measurement, so that it is not lost.
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{file} is no picture; expected a name that ends in .png or .svg.", field="picture")
    require_libraries("matplotlib")
    return file


def save_memory(measured: Memory, path: PathLike) -> None:
    """Saves the report's plot of memory over time as a picture.

    Raises:
        InputError, MissingDependencyError: see `check_picture`.
        OutputError: the file cannot be written.
    """
    file = check_picture(path)
    part = file.with_name(f".{file.name}.partial-{os.getpid()}")
    with styled_canvas() as canvas:
        _plot_timeline(measured, canvas)
        try:
            canvas.savefig(part, format=file.suffix[1:].lower(), dpi=200, facecolor=PAPER)
            os.replace(part, file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{file} cannot be written ({error.strerror or error}).", field="picture") from error
