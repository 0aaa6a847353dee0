"""Whether the machine was quiet while something was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psutil

from .machine import open_gpu

_BUSY = 0.10  # share of the processors that other programs use
_STOLEN = 0.02  # share of processor time that the host of a virtual machine gave to others
_SPREAD = 0.05  # interquartile range over the median
_DRIFT = 0.05  # median of the second half over that of the first
_CLOCK = 0.10  # change of the processor's clock


class MachineMonitor:
    """Compares the machine before and after a measurement; create it before measuring anything."""

    def __init__(self, seconds: float = 0.5) -> None:
        self._busy = psutil.cpu_percent(seconds) / 100
        self._before, self._clock = psutil.cpu_times(), _clock()

    def warnings(self, seconds: Sequence[float]) -> list[str]:
        """Returns sentences that say what makes the samples doubtful; none on a quiet machine.

        Args:
            seconds: samples of the same thing, in the order in which they were measured.
        """
        return [*self._disturbances(), *steadiness(seconds), *_throttled()]

    def _disturbances(self) -> Iterator[str]:
        if self._busy > _BUSY:
            yield f"the machine was {self._busy:.0%} busy before anything was measured; stop other programs."
        after, before, clock = psutil.cpu_times(), self._before, _clock()
        total = sum(after) - sum(before)
        stolen = (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / total if total > 0 else 0.0
        if stolen > _STOLEN:
            yield f"{stolen:.0%} of the processor's time went to other virtual machines."
        if self._clock and clock and abs(clock / self._clock - 1) > _CLOCK:
            yield f"the processor's clock went from {self._clock:.0f} to {clock:.0f} MHz."


def steadiness(seconds: Sequence[float]) -> list[str]:
    """Returns a sentence each if the samples spread or drift too much; none for fewer than four samples."""
    if len(seconds) < 4:
        return []
    found = []
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    if (high - low) / middle > _SPREAD:
        found.append(f"clips spread by {(high - low) / middle:.0%} (interquartile range): run more (`repeats`).")
    half = len(seconds) // 2
    drift = statistics.median(seconds[-half:]) / statistics.median(seconds[:half]) - 1
    if abs(drift) > _DRIFT:
        found.append(f"clips drifted by {drift:+.0%} from the first half to the second: clocks or memory changed.")
    return found


def _clock() -> float | None:
    with suppress(Exception):  # some systems do not report it
        return float(psutil.cpu_freq().current)
    return None


def _throttled() -> list[str]:
    """Why the first GPU's clocks are lowered; empty without a GPU."""
    opened = open_gpu()
    if opened is None:
        return []
    nvml, handle = opened
    with suppress(Exception):  # some GPUs do not report it
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        causes = {
            "power": nvml.nvmlClocksThrottleReasonSwPowerCap,
            "heat": nvml.nvmlClocksThrottleReasonSwThermalSlowdown,
            "the hardware's own limit": nvml.nvmlClocksThrottleReasonHwSlowdown,
        }
        return [f"the GPU's clocks were limited by {cause}." for cause, bit in causes.items() if reasons & bit]
    return []
