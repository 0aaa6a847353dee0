"""What is compared of each kind of measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import statistics
from ..schema import Latency, Memory, Peer, Point, Preset, Roofline, StageFidelity
from . import changes
from .changes import Change

Found = Iterable[Change | str | None]

MATTERS = 0.01
"""Share of a clip by which a component must change to count as a failure. A smaller change is not noticeable, and the
time of a network that takes a millisecond depends on the timer."""


def changes_of(before: Any, after: Any, floor: float) -> Iterator[Change | str]:
    """The changes between two measurements of one kind, and a sentence for each figure that only one of them has."""
    figures, compare = _COMPARERS[before.kind]
    old, new = figures(before), figures(after)
    yield from (f"{name}: only in `before`" for name in old if name not in new)
    yield from (f"{name}: only in `after`" for name in new if name not in old)
    for name in old:
        if name in new:
            yield from filter(None, compare(name, old[name], new[name], floor))


def _times(m: Latency) -> dict[str, Any]:
    """Cold starts as one value, and other times as samples with the least change of their median that counts."""
    matters = MATTERS * (statistics.median_of(m.seconds) or 0.0)
    parts = {name: (samples, matters) for name, samples in m.part_seconds.items()}
    return {"clip": (m.seconds, 0.0), **parts, **{f"cold: {name}": seconds for name, seconds in m.cold.items()}}


def _compare_times(name: str, old: Any, new: Any, floor: float) -> Found:
    if isinstance(old, float):
        remark = f"one value each; less than {changes.COLD_FLOOR:.0%} is taken for noise"
        yield changes.compare_values(name, "s", old, new, changes.COLD_FLOOR, remark=remark)
        return
    change = changes.compare_medians(name, "s", old[0], new[0], floor)
    if change is not None and abs(change.after - change.before) < old[1]:
        small = f"less than {MATTERS:.0%} of a clip, so it does not count"
        remark = change.remark if change.verdict == "same" else small
        change = change.model_copy(update={"counts": False, "remark": remark})
    yield change


def _peaks(m: Memory) -> dict[str, int]:
    devices = {f"peak on the GPU, {name}": max(t.bytes, default=0) for name, t in m.device.items() if name != "device"}
    return {"peak on the host": m.host_peak, **devices, **{f"peak of {k}": v for k, v in m.allocators.items()}}


def _compare_fidelity(name: str, old: StageFidelity, new: StageFidelity, floor: float) -> Found:
    if old.latents and new.latents:
        yield changes.compare_latents(f"{name}: last latents", old.latents[-1], new.latents[-1])
    yield changes.compare_shares(f"{name}: masks IoU", old.masks_iou, new.masks_iou)
    yield changes.compare_frames(f"{name}: frames", old.frames_mean, new.frames_mean)


def _compare_presets(name: str, old: Preset, new: Preset, floor: float) -> Found:
    if old.work != new.work:
        yield f"{name}: the settings differ"
        return
    yield changes.compare_medians(f"{name}: clip", "s", old.seconds, new.seconds, floor)
    yield changes.compare_shares(f"{name}: mIoU", old.miou, new.miou)
    yield changes.compare_shares(f"{name}: mIoU_occ", old.miou_occ, new.miou_occ)
    yield changes.compare_shares(f"{name}: flicker", old.flicker, new.flicker, more_is_worse=True, counts=False)


def _compare_peers(name: str, old: Peer, new: Peer, floor: float) -> Found:
    """Peers never count: most are not ours, and ours count as latency."""
    peak, memory_floor = f"{name}: peak on the host", changes.MEMORY_FLOOR
    yield changes.compare_medians(f"{name}: clip", "s", old.seconds, new.seconds, floor, counts=False)
    yield changes.compare_values(peak, "B", old.host_peak, new.host_peak, memory_floor, counts=False)


def _ceilings(m: Roofline) -> dict[str, tuple[changes.Unit, list[float]]]:
    return {
        f"machine: matrix products, {m.ceilings.precision}": ("FLOP/s", m.ceilings.flops),
        "machine: copy bandwidth": ("B/s", m.ceilings.bandwidth),
    }


def _compare_ceilings(name: str, old: Any, new: Any, floor: float) -> Found:
    """Ceilings never count: if they fell, the machine was slower, not the code."""
    yield changes.compare_medians(name, old[0], old[1], new[1], floor, more_is_worse=False, counts=False)


def _compare_points(name: str, old: Point, new: Point, floor: float) -> Found:
    yield changes.compare_medians(f"{name}: clip", "s", old.seconds, new.seconds, floor)
    yield changes.compare_values(f"{name}: peak memory", "B", old.peak, new.peak, changes.MEMORY_FLOOR)


_COMPARERS: dict[str, tuple[Callable[[Any], dict[str, Any]], Callable[[str, Any, Any, float], Found]]] = {
    "latency": (_times, _compare_times),
    "memory": (_peaks, lambda name, a, b, floor: [changes.compare_values(name, "B", a, b, changes.MEMORY_FLOOR)]),
    "fidelity": (lambda m: {str(stage.stage): stage for stage in m.stages}, _compare_fidelity),
    "quality": (lambda m: {preset.name: preset for preset in m.presets}, _compare_presets),
    "peers": (lambda m: {peer.name: peer for peer in m.peers}, _compare_peers),
    "roofline": (_ceilings, _compare_ceilings),
    "scaling": (lambda m: {f"{s.axis} {p.value:g}": p for s in m.sweeps for p in s.points}, _compare_points),
}
