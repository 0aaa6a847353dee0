"""Concurrent calls, each on its own thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from ..errors import BackendError, first_line
from .backend import Executable
from .denormals import denormals_as_zero


class Lanes:
    """`count` threads of a backend, shared by its components because each further thread would keep freed memory.

    They end when the last component that uses them is closed.
    """

    def __init__(self, count: int) -> None:
        self._count, self._users, self._lock = count, 0, Lock()
        self._pool: ThreadPoolExecutor | None = None

    def enter(self) -> ThreadPoolExecutor:
        """Adds a user and returns the threads."""
        with self._lock:
            self._users += 1
            self._pool = self._pool or ThreadPoolExecutor(self._count, "amodal-lane")
            return self._pool

    def leave(self) -> None:
        """Removes a user; the last one ends the threads."""
        with self._lock:
            self._users -= 1
            pool, self._pool = (self._pool, None) if not self._users else (None, self._pool)
        if pool is not None:
            pool.shutdown()


class LaneExecutable(Executable):
    """Base of an executable on a CPU whose `map` runs calls concurrently.

    Args:
        library: name for messages.
        kind: of the component, for messages.
        lanes: the backend's threads; None to run calls one after the other.
    """

    def __init__(self, library: str, kind: str, lanes: Lanes | None) -> None:
        self._library, self._kind, self._lanes, self._closed = library, kind, lanes, False
        self._pool = None if lanes is None else lanes.enter()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        if self._closed:
            raise BackendError(f"component {self._kind} was closed; load the bundle again.")
        try:
            with denormals_as_zero():
                return self._run(dict(inputs))
        except Exception as error:
            message = f"{self._library} failed in component {self._kind}: {first_line(error)}"
            raise BackendError(message) from error

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`."""
        if self._pool is None or len(batches) == 1:
            return super().map(batches)
        return list(self._pool.map(self, batches))

    def close(self) -> None:
        """See `Executable.close`."""
        self._closed, self._pool = True, None
        if self._lanes is not None:
            self._lanes.leave()
            self._lanes = None
