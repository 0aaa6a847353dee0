"""What is compared of each kind of measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from .. import statistics
from ..schema import ClipTimes, Fidelity, Latency, Memory, Peers, Quality, Roofline, Scaling
from ..wording import OUTSIDE
from . import changes
from .changes import Change

Found: TypeAlias = Iterator[Change | str | None]
_T = TypeVar("_T")

MATTERS = 0.01
"""Share of a clip by which a component must change before it counts as a failure. Below it nobody would notice,
and a network that takes a millisecond is judged by the timer."""


def changes_of(before: Any, after: Any, floor: float) -> Iterator[Change | str]:
    """The figures of two measurements of one kind, and sentences about what only one of them has.

    Args:
        floor: see `statistics.compare`.
    """
    for found in _COMPARERS[before.kind](before, after, floor):
        if found is not None:
            yield found


def _shared(before: Mapping[str, _T], after: Mapping[str, _T]) -> tuple[list[tuple[str, _T, _T]], list[str]]:
    """What has a name that both have, with it; and a sentence for each name that one has."""
    alone = [f"{name}: only in `before`" for name in before if name not in after]
    alone += [f"{name}: only in `after`" for name in after if name not in before]
    return [(name, before[name], after[name]) for name in before if name in after], alone


def _latency(a: Latency, b: Latency, floor: float) -> Found:
    yield changes.of_samples("clip", "s", [c.seconds for c in a.clips], [c.seconds for c in b.clips], floor)
    whole = statistics.summarise([c.seconds for c in a.clips])
    parts, alone = _shared(_parts(a.clips), _parts(b.clips))
    yield from alone
    for name, old, new in parts:
        change = changes.of_samples(name, "s", old, new, floor)
        small = whole is None or change is None or abs(change.after - change.before) < MATTERS * whole.median
        if change is not None and small:
            remark = "" if change.verdict == "same" else f"less than {MATTERS:.0%} of a clip, so it does not count"
            change = change.model_copy(update={"counts": False, "remark": remark or change.remark})
        yield change
    once, alone = _shared(a.cold, b.cold)
    yield from alone
    for name, was, now in once:
        remark = f"one value each; less than {changes.COLD_FLOOR:.0%} is taken for noise"
        yield changes.of_values(f"cold: {name}", "s", was, now, changes.COLD_FLOOR, remark=remark)


def _parts(clips: Sequence[ClipTimes]) -> dict[str, list[float]]:
    """Seconds by component, and of everything outside the networks."""
    names = {name: None for clip in clips for name in clip.parts}
    found = {name: [clip.parts.get(name, 0.0) for clip in clips] for name in names}
    found[OUTSIDE] = [clip.outside for clip in clips]
    return found


def _memory(a: Memory, b: Memory, floor: float) -> Found:
    both, alone = _shared(_peaks(a), _peaks(b))
    yield from alone
    for name, old, new in both:
        yield changes.of_values(name, "B", old, new, changes.MEMORY_FLOOR)


def _peaks(m: Memory) -> dict[str, int]:
    devices = {f"peak on the GPU, {name}": max(t.bytes, default=0) for name, t in m.device.items() if name != "device"}
    return {"peak on the host": m.host_peak, **devices, **{f"peak of {k}": v for k, v in m.allocators.items()}}


def _fidelity(a: Fidelity, b: Fidelity, floor: float) -> Found:
    both, alone = _shared(*({str(s.stage): s for s in m.stages} for m in (a, b)))
    yield from alone
    for name, old, new in both:
        if old.latents and new.latents:
            yield changes.of_latents(f"{name}: last latents", old.latents[-1], new.latents[-1])
        if old.masks_iou is not None and new.masks_iou is not None:
            yield changes.of_shares(f"{name}: masks IoU", old.masks_iou, new.masks_iou)
        yield changes.of_shares(
            f"{name}: frames",
            old.frames_mean,
            new.frames_mean,
            changes.GREY_FLOOR,
            unit="grey levels",
            more_is_worse=True,
        )


def _quality(a: Quality, b: Quality, floor: float) -> Found:
    both, alone = _shared(*({p.name: p for p in m.presets} for m in (a, b)))
    yield from alone
    for name, old, new in both:
        if old.work != new.work:
            yield f"{name}: asked for other work"
            continue
        yield changes.of_samples(f"{name}: clip", "s", old.seconds, new.seconds, floor)
        yield changes.of_shares(f"{name}: mIoU", old.miou, new.miou)
        if old.miou_occ is not None and new.miou_occ is not None:
            yield changes.of_shares(f"{name}: mIoU_occ", old.miou_occ, new.miou_occ)
        if old.flicker is not None and new.flicker is not None:
            yield changes.of_shares(f"{name}: flicker", old.flicker, new.flicker, more_is_worse=True, counts=False)


def _peers(a: Peers, b: Peers, floor: float) -> Found:
    """Shown, but not counted: most of them are not ours, and what is ours is counted as latency."""
    both, alone = _shared(*({p.name: p for p in m.peers} for m in (a, b)))
    yield from alone
    for name, old, new in both:
        yield changes.of_samples(f"{name}: clip", "s", old.seconds, new.seconds, floor, counts=False)
        yield changes.of_values(
            f"{name}: peak on the host", "B", old.host_peak, new.host_peak, changes.MEMORY_FLOOR, counts=False
        )


def _roofline(a: Roofline, b: Roofline, floor: float) -> Found:
    """The machine's own ceilings: if they fell, the machine was slower, not the code."""
    if a.ceilings.precision != b.ceilings.precision:
        yield f"ceilings in {a.ceilings.precision} and {b.ceilings.precision}"
        return
    for what, old, new in (
        (f"matrix products, {a.ceilings.precision}", a.ceilings.flops, b.ceilings.flops),
        ("copy bandwidth", a.ceilings.bandwidth, b.ceilings.bandwidth),
    ):
        unit: changes.Unit = "B/s" if what == "copy bandwidth" else "FLOP/s"
        yield changes.of_samples(f"machine: {what}", unit, old, new, floor, more_is_worse=False, counts=False)


def _scaling(a: Scaling, b: Scaling, floor: float) -> Found:
    both, alone = _shared(*({f"{s.axis} {p.value:g}": p for s in m.sweeps for p in s.points} for m in (a, b)))
    yield from alone
    for name, old, new in both:
        yield changes.of_samples(f"{name}: clip", "s", old.seconds, new.seconds, floor)
        yield changes.of_values(f"{name}: peak memory", "B", old.peak, new.peak, changes.MEMORY_FLOOR)


_COMPARERS: dict[str, Callable[[Any, Any, float], Found]] = {
    "latency": _latency,
    "memory": _memory,
    "fidelity": _fidelity,
    "quality": _quality,
    "peers": _peers,
    "roofline": _roofline,
    "scaling": _scaling,
}
