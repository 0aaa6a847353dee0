"""Scenes for the tests, importable by the workers that run them: one that takes long, and each way of not ending."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from amodal.runtime.errors import NonFiniteError


def naps(begun: Path, number: int) -> int:
    """Leaves a file named after the process in `begun`, and takes three seconds."""
    (begun / f"{number} {os.getpid()}").touch()
    time.sleep(3)
    return number


def is_killed(number: int) -> int:
    """Ends as a process does that took too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def overflows(number: int) -> int:
    """Fails as a model does that overflows."""
    raise NonFiniteError(number, 0.5)
