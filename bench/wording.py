"""Figures and settings as text, the same in the report, its summary and the comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeVar

from .schema import Executed, Fidelity, Latency, Memory, Scaling, Work

Run = TypeVar("Run", bound=Latency | Memory | Fidelity | Scaling)

DASH = "–"
_PREFIXES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}


def digits(value: float) -> str:
    """At least three significant digits and all before the point; an exponent only for very small or large values."""
    if not value:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def seconds(value: float | None) -> str:
    """`1.23 s`, `45.6 ms`, `7.8 µs`; a dash for None."""
    if value is None:
        return DASH
    if abs(value) >= 1 or not value:
        return f"{digits(value)} s"
    return f"{digits(1e3 * value)} ms" if abs(value) >= 1e-3 else f"{digits(1e6 * value)} µs"


def per_frame(clip: float | None, work: Work) -> str:
    """Seconds per frame of a clip, always in seconds, as papers give them; a dash for None."""
    return DASH if clip is None else f"{digits(clip / work.frames)} s"


def scaled(value: float | None, unit: str = "FLOP") -> str:
    """`30.2 TFLOP`, `1.23 GB`, with decimal prefixes; a dash for None."""
    if value is None:
        return DASH
    for prefix, scale in _PREFIXES.items():
        if abs(value) >= scale:
            return f"{digits(value / scale)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def in_bytes(value: float | None) -> str:
    """`1.23 GB`, in decimal units; a dash for None."""
    return scaled(value, "B")


def quantity(value: float, unit: str) -> str:
    """A value with its unit: `s`, `B`, `FLOP/s`, `B/s`; shares and others as plain numbers."""
    if unit == "s":
        return seconds(value)
    if unit in ("B", "B/s", "FLOP/s"):
        return scaled(value, unit)
    return f"{value:.4f}" if unit == "share" else digits(value)


def percent(share: float | None, places: int = 1) -> str:
    """`12.3 %`; a dash for None."""
    return DASH if share is None else f"{100 * share:.{places}f} %"


def relative_change(ratio: float | None) -> str:
    """A ratio as `+12.3 %`, or as `x 12.3` from 3 on; a dash for None."""
    if ratio is None:
        return DASH
    return f"x {digits(ratio)}" if ratio >= 3 else f"{100 * (ratio - 1):+.1f} %"


def without_controls(text: str) -> str:
    """Replaces control characters, which HTML and XML forbid; line ends and tabs stay."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", text)


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _settings(work: Work) -> list[str]:
    """The settings in words; empty where they need not be mentioned."""
    return [
        " and ".join(work.stages) or "no stage",
        f"{plural(work.frames, 'frame')} of {work.size[0]}x{work.size[1]}",
        plural(work.steps, "step") if work.steps else "",
        f"guidance {work.guidance:g}" if work.steps else "",
        f"churn {work.churn:g}" if work.steps and work.churn else "",
        plural(work.samples, "sample") if work.samples != 1 else "",
        "depth computed by the bundle" if work.depth else "",
        f"seed {work.seed}",
    ]


def describe_work(work: Work) -> str:
    """The settings of a clip in one line."""
    return ", ".join(filter(None, _settings(work)))


def describe_executed(executed: Executed) -> str:
    """Backend, device, memory mode and options in one line."""
    options = [f"{key} {value}" for key, value in executed.options.items() if key not in ("name", "version")]
    return ", ".join([f"{executed.backend} {executed.version}", executed.device, executed.memory, *options])


def describe_runs(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """Settings and backend of each named run, one sentence each."""
    return [f"{name}: {describe_work(m.work)}; {describe_executed(m.executed)}." for name, m in runs]


def name_runs(measurements: Sequence[Run]) -> list[tuple[str, Run]]:
    """Each measurement with a short name that tells it from the others.

    Names are such as `onnxruntime, cpu`; details are added until all differ, and numbers if everything is equal.
    """
    names = [f"{m.executed.backend}, {m.executed.device}" for m in measurements]
    details = [[m.executed.memory, *_settings(m.work), describe_executed(m.executed)] for m in measurements]
    for column in zip(*details, strict=True):
        if len(set(names)) < len(names) and len(set(column)) > 1:
            names = [f"{name}, {detail}" if detail else name for name, detail in zip(names, column, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name}, {i}" for i, name in enumerate(names, 1)]
    return list(zip(names, measurements, strict=True))
