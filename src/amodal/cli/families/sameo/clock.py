"""Where the seconds of a run go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of the parts of a run."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._start = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the block's time as that of a part."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start
