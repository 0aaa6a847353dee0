"""A base for backends that wrap another to observe or record what runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.manifest import ComponentEntry
from .backend import Backend, Executable

Batches = Sequence[Mapping[str, Any]]
Results = list[dict[str, Any]]


class BackendProxy:
    """Forwards everything to another backend. Override `around` to observe the calls of its executables."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.xp, self.lanes, self.engines = backend.name, backend.xp, backend.lanes, backend.engines
        self.on_gpu, self._backend = backend.on_gpu, backend

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        return _ExecutableProxy(self._backend.load(entry, files, lanes), partial(self.around, entry, files))

    def around(self, entry: ComponentEntry, files: list[Path], batches: Batches, run: Callable[[], Results]) -> Results:
        """Makes a call of a loaded component, `run`, with one or several inputs; returns its results."""
        return run()

    def active(self) -> AbstractContextManager[None]:
        """See `Backend.active`."""
        return self._backend.active()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`."""
        return self._backend.to_host(array)

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`."""
        return self._backend.free_memory()

    def reserve_activations(self, size: int) -> None:
        """See `Backend.reserve_activations`."""
        self._backend.reserve_activations(size)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return self._backend.describe()


class _ExecutableProxy(Executable):
    def __init__(self, executable: Executable, around: Callable[[Batches, Callable[[], Results]], Results]) -> None:
        self._executable, self._around = executable, around

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self._around([inputs], lambda: [self._executable(inputs)])[0]

    def map(self, batches: Batches) -> Results:
        return self._around(batches, lambda: self._executable.map(batches))

    def close(self) -> None:
        self._executable.close()
