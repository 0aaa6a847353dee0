"""What a node reports about itself; knows no ROS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_KEPT = 256  # results whose latencies give the percentiles
OK, WARN, ERROR = 0, 1, 2
"""Levels of `diagnostic_msgs/msg/DiagnosticStatus`."""


@dataclass(frozen=True)
class Limits:
    """Seconds of latency from which the level is WARN and ERROR, and seconds without messages for WARN."""

    warn_latency: float = 0.5
    error_latency: float = 2.0
    silence: float = 2.0


class Figures:
    """Counts since the node was activated; used by several threads."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits, self._begin, self._lock = limits, now, threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_KEPT)
        self._arrivals: deque[float] = deque(maxlen=_KEPT)
        self._counts = dict.fromkeys(("pushed", "answered", "dropped", "refused", "deadline_misses"), 0)
        self._problem, self._fatal, self._lasting = "", "", ""

    def pushed(self, now: float) -> None:
        """Notes that a frame was taken."""
        with self._lock:
            self._counts["pushed"] += 1
            self._arrivals.append(now)
            self._problem = ""

    def refused(self, why: str) -> None:
        """Notes that a frame was not taken; the next that is taken clears the reason."""
        with self._lock:
            self._counts["refused"] += 1
            self._problem = why

    def answered(self, latency: float, skipped: int, late: bool) -> None:
        """Notes a result: seconds since its frame's stamp, frames before it without one, whether a window was late."""
        with self._lock:
            self._counts["answered"] += 1
            self._counts["dropped"] += skipped
            self._counts["deadline_misses"] += late
            self._latencies.append(latency)

    def lasts(self, why: str) -> None:
        """Notes a problem that stays, such as QoS that does not match."""
        with self._lock:
            self._lasting = why

    def failed(self, why: str) -> None:
        """Notes that nothing more is computed."""
        with self._lock:
            self._fatal = why

    def status(self, now: float, unpaired: Sequence[tuple[str, int]]) -> tuple[int, str, dict[str, str]]:
        """Returns level, message and values; rate in frames a second, latencies in milliseconds."""
        with self._lock:
            values = {name: str(count) for name, count in self._counts.items()}
            arrivals, latencies = list(self._arrivals), list(self._latencies)
            fatal, problem = self._fatal, self._problem or self._lasting
        values |= {f"unpaired {topic}": str(count) for topic, count in unpaired}
        median = 0.0
        if latencies:
            median, high = (float(value) for value in np.percentile(latencies, [50, 99]))
            values |= {"latency_p50_ms": f"{1000 * median:.1f}", "latency_p99_ms": f"{1000 * high:.1f}"}
        if len(arrivals) > 1 and arrivals[-1] > arrivals[0]:
            values["rate_hz"] = f"{(len(arrivals) - 1) / (arrivals[-1] - arrivals[0]):.1f}"
        quiet = now - (arrivals[-1] if arrivals else self._begin)
        if fatal:
            return ERROR, fatal, values
        if problem:
            return WARN, problem, values
        if quiet > self._limits.silence:
            return WARN, f"no complete frame for {quiet:.1f} s", values
        if median > self._limits.warn_latency:
            return ERROR if median > self._limits.error_latency else WARN, f"results are {median:.2f} s late", values
        return OK, "running", values
