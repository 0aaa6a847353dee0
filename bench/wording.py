"""Numbers and settings as people read them; the report, its summary and the comparison say them alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from .schema import Executed, Work

DASH = "–"
OUTSIDE = "outside the networks"
_BYTES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_OPERATIONS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def digits(value: float, count: int = 3) -> str:
    """A number with `count` significant digits, never fewer before the point, without an exponent where one can."""
    if not value:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{count - 1}e}"
    places = max(0, count - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def seconds(value: float | None) -> str:
    """`1.23 s`, `45.6 ms`, `7.8 µs`; a dash for None."""
    if value is None:
        return DASH
    if abs(value) >= 1 or not value:
        return f"{digits(value)} s"
    return f"{digits(1e3 * value)} ms" if abs(value) >= 1e-3 else f"{digits(1e6 * value)} µs"


def per_frame(clip: float, work: Work) -> str:
    """Seconds per frame of a clip; in seconds however few, as papers and targets have it."""
    return f"{digits(clip / work.frames)} s"


def in_bytes(value: float | None) -> str:
    """`1.23 GB`, in decimal units as in the design; a dash for None."""
    return DASH if value is None else _scaled(value, _BYTES, "B")


def operations(value: float | None, unit: str = "FLOP") -> str:
    """`30.2 TFLOP`, or of another unit, such as `FLOP/s`; a dash for None."""
    return DASH if value is None else _scaled(value, tuple((p + unit, s) for p, s in _OPERATIONS), unit)


def quantity(value: float, unit: str) -> str:
    """A value with its unit: `s`, `B`, `FLOP/s`, `B/s`; shares and others as plain numbers."""
    if unit == "s":
        return seconds(value)
    if unit in ("B", "B/s"):
        return in_bytes(value) + unit.removeprefix("B")
    if unit == "FLOP/s":
        return operations(value, unit)
    return f"{value:.4f}" if unit == "share" else digits(value)


def percent(share: float | None, places: int = 1) -> str:
    """`12.3 %`; a dash for None."""
    return DASH if share is None else f"{100 * share:.{places}f} %"


def change(ratio: float | None) -> str:
    """A ratio as `+12.3 %`, or as `x 12.3` from a tripling on; a dash for None."""
    if ratio is None:
        return DASH
    return f"x {digits(ratio)}" if ratio >= 3 else f"{100 * (ratio - 1):+.1f} %"


def without_controls(text: str) -> str:
    """Control characters, which neither HTML nor XML may hold, as a replacement character; line ends and tabs stay."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", text)


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def describe_work(work: Work) -> str:
    """What a clip was asked to do, in one line."""
    parts = [
        " and ".join(work.stages) or "no stage",
        f"{plural(work.frames, 'frame')} of {work.size[0]}x{work.size[1]}",
        plural(work.steps, "step"),
        f"guidance {work.guidance:g}",
    ]
    parts += [f"churn {work.churn:g}"] if work.churn else []
    parts += [plural(work.samples, "sample")] if work.samples != 1 else []
    parts += ["depth found by the bundle"] if work.depth else []
    return ", ".join([*parts, f"seed {work.seed}"])


def describe_executed(executed: Executed) -> str:
    """How it was executed, in one line."""
    options = [f"{key} {value}" for key, value in executed.options.items() if key not in ("name", "version")]
    return ", ".join([f"{executed.backend} {executed.version}", executed.device, executed.memory, *options])


def distinct_names(runs: Sequence[tuple[Work, Executed]]) -> list[str]:
    """Short names for runs, each with no more than is needed to tell them apart.

    Args:
        runs: what was done and how, of each.

    Returns:
        Names such as `onnxruntime, cpu`; numbered where everything is equal.
    """
    tellers: list[Callable[[Work, Executed], str]] = [
        lambda work, executed: executed.memory,
        lambda work, executed: " and ".join(work.stages),
        lambda work, executed: plural(work.steps, "step"),
        lambda work, executed: f"guidance {work.guidance:g}",
        lambda work, executed: f"{work.frames}x{work.size[0]}x{work.size[1]}",
        lambda work, executed: plural(work.samples, "sample"),
        lambda work, executed: executed.version,
        lambda work, executed: " ".join(f"{key} {value}" for key, value in executed.options.items()),
    ]
    names = [f"{executed.backend}, {executed.device}" for _, executed in runs]
    for teller in tellers:
        if _all_differ(names):
            return names
        told = [teller(*run) for run in runs]
        if len(set(told)) > 1:
            names = [f"{name}, {more}" if more else name for name, more in zip(names, told, strict=True)]
    return names if _all_differ(names) else [f"{name}, {i + 1}" for i, name in enumerate(names)]


def _all_differ(names: Iterable[str]) -> bool:
    names = list(names)
    return len(set(names)) == len(names)


def _scaled(value: float, units: Sequence[tuple[str, float]], smallest: str) -> str:
    for unit, scale in units:
        if abs(value) >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{value:.0f} {smallest}"
