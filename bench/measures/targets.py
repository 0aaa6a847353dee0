"""Targets of a deployment, and which of them were missed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from amodal.runtime.errors import InputError

from ..running.memory import device_peak
from ..schema import Latency, Measurement, Memory


def missed_targets(
    measurements: Sequence[Measurement], *, spf: float | None = None, vram: int | None = None
) -> list[str]:
    """Returns a sentence for each target that the best measurement missed, or that nothing was measured for.

    Args:
        spf: largest seconds per frame of the median clip.
        vram: largest peak in bytes of the process's GPU memory; of its host memory where it ran on the CPU.

    Raises:
        InputError: a target of 0 or less.
    """
    spfs = [
        statistics.median(clip.seconds for clip in m.clips) / m.work.frames
        for m in measurements
        if isinstance(m, Latency)
    ]
    peaks = [_peak(m) for m in measurements if isinstance(m, Memory)]
    found = []
    for name, target, measured, unit, scale in (
        ("target_spf", spf, spfs, "seconds per frame", 1.0),
        ("target_vram", vram, [peak for peak in peaks if peak is not None], "GB", 1e9),
    ):
        if target is None:
            continue
        if not target > 0:
            raise InputError(f"`{name}={target}`: expected more than 0.")
        best = min(measured, default=None)
        if best is None:
            found.append(f"`{name}`: nothing was measured that could reach it.")
        elif best > target:
            found.append(f"`{name}={target / scale:g}` was missed: {best / scale:.3f} {unit} at best.")
    return found


def _peak(memory: Memory) -> int | None:
    if memory.executed.device == "cpu":
        return memory.host_peak
    return device_peak({name: timeline.bytes for name, timeline in memory.device.items()})
