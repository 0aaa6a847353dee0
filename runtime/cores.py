"""Counts usable processor cores."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the number of cores this process may use; all of the machine's where there is no affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
