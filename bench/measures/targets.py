"""Targets that somebody's deployment has to meet, and which of them were missed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from amodal.runtime.errors import InputError

from ..running.memory import device_peak
from ..schema import Latency, Measurement, Memory


def missed_targets(
    measurements: Sequence[Measurement], *, spf: float | None = None, vram: int | None = None
) -> list[str]:
    """A sentence for each target that was missed, or that nothing was measured for.

    Args:
        spf: the most seconds per frame, of the median clip.
        vram: the most bytes of GPU memory of the process, at any time; where there was no GPU, of the host's.

    Raises:
        InputError: a target of 0 or less.
    """
    for name, value in (("target_spf", spf), ("target_vram", vram)):
        if value is not None and not value > 0:
            raise InputError(f"`{name}={value}`: expected more than 0.")
    found = []
    if spf is not None:
        taken = [
            statistics.median(clip.seconds for clip in m.clips) / m.work.frames
            for m in measurements
            if isinstance(m, Latency)
        ]
        found += _missed("target_spf", "seconds per frame", spf, taken, 1.0)
    if vram is not None:
        peaks = [_peak(m) for m in measurements if isinstance(m, Memory)]
        found += _missed("target_vram", "GB", vram, [float(peak) for peak in peaks if peak is not None], 1e9)
    return found


def _peak(memory: Memory) -> int | None:
    """The GPU's; the host's where the bundle ran on the CPU."""
    if memory.executed.device == "cpu":
        return memory.host_peak
    return device_peak({name: timeline.bytes for name, timeline in memory.device.items()})


def _missed(name: str, unit: str, target: float, taken: Sequence[float], scale: float) -> list[str]:
    if not taken:
        return [f"`{name}`: nothing was measured that could reach it."]
    best = min(taken)
    if best <= target:
        return []
    return [f"`{name}={target / scale:g}` was missed: {best / scale:.3f} {unit} at the best."]
