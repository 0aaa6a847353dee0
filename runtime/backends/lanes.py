"""Calls side by side, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any


class Lanes:
    """The threads of a backend, shared by its components: every further thread would keep freed memory of its own.

    They end when the last component that uses them is closed.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count, self._users, self._lock = count, 0, Lock()
        self._pool: ThreadPoolExecutor | None = None

    def enter(self) -> ThreadPoolExecutor:
        """Counts one more component, and returns its threads."""
        with self._lock:
            self._users += 1
            self._pool = self._pool or ThreadPoolExecutor(self._count, "amodal-lane")
            return self._pool

    def leave(self) -> None:
        """Counts one component less."""
        with self._lock:
            self._users -= 1
            pool = self._pool
            if self._users or pool is None:
                return
            self._pool = None
        pool.shutdown()


class LaneExecutable:
    """Base of an `Executable` whose calls in `map` run side by side.

    Args:
        kind: the component's, for messages.
        lanes: the backend's threads; None to run one call after the other.
    """

    def __init__(self, kind: str, lanes: Lanes | None) -> None:
        self._kind, self._lanes = kind, lanes
        self._pool = None if lanes is None else lanes.enter()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        raise NotImplementedError

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`."""
        if self._pool is None or len(batches) == 1:
            return [self(inputs) for inputs in batches]
        return list(self._pool.map(self, batches))

    def close(self) -> None:
        """See `Executable.close`."""
        self._pool = None
        if self._lanes is not None:
            self._lanes.leave()
            self._lanes = None
