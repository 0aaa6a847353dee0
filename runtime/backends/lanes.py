"""Concurrent calls, each on its own thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from .backend import Executable


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
    """Base of an executable whose `map` runs calls concurrently.

    Args:
        kind: of the component, for messages.
        lanes: the backend's threads; None to run calls one after the other.
    """

    def __init__(self, kind: str, lanes: Lanes | None) -> None:
        self._kind, self._lanes = kind, lanes
        self._pool = None if lanes is None else lanes.enter()

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`."""
        if self._pool is None or len(batches) == 1:
            return super().map(batches)
        return list(self._pool.map(self, batches))

    def close(self) -> None:
        """See `Executable.close`."""
        self._pool = None
        if self._lanes is not None:
            self._lanes.leave()
            self._lanes = None
