"""Whether the machine holds still while it is measured, and what it says if not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress

import psutil

_BUSY = 0.10  # share of the machine that others take
_STOLEN = 0.02  # share of processor time that the host of a virtual machine gave to others
_SPREAD = 0.05  # interquartile range over the median
_DRIFT = 0.05  # median of the second half over that of the first
_CLOCK = 0.10  # change of the processor's clock


class Watchman:
    """Looks at the machine before and after; make it before anything is measured."""

    def __init__(self, look: float = 0.5) -> None:
        self._busy = psutil.cpu_percent(look) / 100
        self._before, self._clock = psutil.cpu_times(), _clock()

    def warnings(self, seconds: Sequence[float]) -> list[str]:
        """What makes the samples doubtful: sentences, none on a quiet machine.

        Args:
            seconds: samples of one thing, in the order in which they were taken.
        """
        found = []
        if self._busy > _BUSY:
            found.append(f"the machine was {self._busy:.0%} busy before anything was measured; end what else runs.")
        after = psutil.cpu_times()
        total = sum(after) - sum(self._before)
        stolen = (getattr(after, "steal", 0.0) - getattr(self._before, "steal", 0.0)) / total if total > 0 else 0.0
        if stolen > _STOLEN:
            found.append(f"{stolen:.0%} of the processor's time went to other virtual machines.")
        clock = _clock()
        if self._clock and clock and abs(clock / self._clock - 1) > _CLOCK:
            found.append(f"the processor's clock went from {self._clock:.0f} to {clock:.0f} MHz.")
        return found + steadiness(seconds) + _throttled()


def steadiness(seconds: Sequence[float]) -> list[str]:
    """Whether samples spread or drift more than a steady machine's; fewer than four say nothing."""
    if len(seconds) < 4:
        return []
    found = []
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    if (high - low) / middle > _SPREAD:
        found.append(f"clips spread by {(high - low) / middle:.0%} (interquartile range): take more (`repeats`).")
    half = len(seconds) // 2
    drift = statistics.median(seconds[-half:]) / statistics.median(seconds[:half]) - 1
    if abs(drift) > _DRIFT:
        found.append(f"clips drifted by {drift:+.0%} from the first half to the second: clocks or memory changed.")
    return found


def _clock() -> float | None:
    with suppress(Exception):  # not told on every system
        return float(psutil.cpu_freq().current)
    return None


def _throttled() -> list[str]:
    """What slows the first GPU down, by NVML; nothing without one."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 (no library or no driver: no GPU)
        return []
    slow = {
        "power": pynvml.nvmlClocksThrottleReasonSwPowerCap,
        "heat": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        "the hardware's own limit": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    }
    with suppress(Exception):
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(pynvml.nvmlDeviceGetHandleByIndex(0))
        return [f"the GPU's clocks were held down by {what}." for what, bit in slow.items() if reasons & bit]
    return []
