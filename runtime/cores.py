"""The processor cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Counts the cores this process may use; where the system has no affinity, those of the machine, or 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
