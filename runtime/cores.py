"""How many processor cores there are to compute on."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; where the system does not tell, those of the machine, or 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
