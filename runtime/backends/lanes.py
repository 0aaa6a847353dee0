"""Calls side by side, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

Run = Callable[[Mapping[str, Any]], dict[str, Any]]


class Lanes:
    """The threads of a backend, for all its components: every further thread would keep freed memory of its own.

    They end with the last component that uses them.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count, self._users, self._lock = count, 0, Lock()
        self._pool: ThreadPoolExecutor | None = None

    def enter(self) -> Lane:
        """A component's use of them, until it is closed."""
        with self._lock:
            self._users += 1
            self._pool = self._pool or ThreadPoolExecutor(self._count, "amodal-lane")
            return Lane(self, self._pool)

    def leave(self) -> None:
        """One component less."""
        with self._lock:
            self._users -= 1
            pool = self._pool
            if self._users or pool is None:
                return
            self._pool = None
        pool.shutdown()


class Lane:
    """One component's use of a backend's threads."""

    def __init__(self, owner: Lanes, pool: ThreadPoolExecutor) -> None:
        self._owner, self._pool = owner, pool

    def map(self, run: Run, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `run` gives for each, in order."""
        return list(self._pool.map(run, batches))

    def close(self) -> None:
        """To be called once."""
        self._owner.leave()
