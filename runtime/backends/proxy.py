"""Bases for backends that wrap another to observe or record what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.manifest import ComponentEntry
from .backend import Backend, Executable


class BackendProxy:
    """Forwards everything to another backend. Override `load` to wrap the executables."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.xp, self.lanes, self.engines = backend.name, backend.xp, backend.lanes, backend.engines
        self._backend = backend

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        return self._backend.load(entry, files, lanes)

    def active(self) -> AbstractContextManager[None]:
        """See `Backend.active`."""
        return self._backend.active()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`."""
        return self._backend.to_host(array)

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`."""
        return self._backend.free_memory()

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return self._backend.describe()


class ExecutableProxy:
    """Forwards everything to another executable. Override `__call__` and `map` to observe its calls."""

    def __init__(self, executable: Executable) -> None:
        self._executable = executable

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        return self._executable(inputs)

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`."""
        return self._executable.map(batches)

    def close(self) -> None:
        """See `Executable.close`."""
        self._executable.close()
