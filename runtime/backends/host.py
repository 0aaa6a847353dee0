"""What backends on a CPU share: arrays are numpy's, and there is no device to switch to."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..errors import BackendUnavailableError, InputError
from .backend import EngineNeeds


class HostBackend:
    """Base of backends that run graphs on a CPU; see `Backend`."""

    engines: EngineNeeds | None = None

    def __init__(self) -> None:
        self.xp: Any = np

    def active(self) -> AbstractContextManager[None]:
        """See `Backend.active`."""
        return nullcontext()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`."""
        return np.asarray(array)

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`."""
        return None


def check_host_options(backend: str, device: str | None, threads: int | None, devices: str = "cpu") -> None:
    """Checks the device and the threads that a CPU backend is created with; `devices` are those to name.

    Raises:
        BackendUnavailableError: the device is not the CPU.
        InputError: fewer than one thread.
    """
    if device not in (None, "cpu"):
        raise BackendUnavailableError(f"backend {backend} has no device {device!r}; expected {devices}.")
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads were asked for; expected 1 or more.", field="threads")
