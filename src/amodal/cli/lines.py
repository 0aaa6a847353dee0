"""Progress as lines, for logs and pipes: one every few seconds, as long as something goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

import click

EVERY = 5.0
"""Seconds between two lines, and before the first."""


def _print(line: str) -> None:
    click.echo(line, err=True)


class Lines:
    """Prints how far something is, such as `segment: step 12 of 25, 48 s, about 52 s left`.

    Args:
        every: seconds between two lines; infinite for none.
        clock: in seconds, never going back.
        write: prints a line.
    """

    def __init__(
        self, every: float, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] = _print
    ) -> None:
        self._every, self._clock, self._write = every, clock, write
        self._lock = Lock()
        self._printed = self._since = clock()
        self._what = self._detail = ""
        self._counts: list[tuple[float, int]] = []  # when the first and the newest piece was done
        self._total: int | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Prints in the block from a thread of its own, so that work which reports nothing for long shows up too."""
        if math.isinf(self._every):
            yield
            return
        ended = Event()

        def repeat() -> None:
            while not ended.wait(min(1.0, self._every)):
                self.tick()

        thread = Thread(target=repeat, name="amodal-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def begin(self, what: str) -> None:
        """Starts a new subject, whose seconds count from now."""
        with self._lock:
            self._what, self._detail, self._since = what, "", self._clock()
            self._counts, self._total = [], None

    def update(self, detail: str, done: int = 0, total: int | None = None) -> None:
        """Says what is being done, and how much of it is: `total` of None where that is not known."""
        with self._lock:
            if total != self._total or (self._counts and done < self._counts[-1][1]):
                self._counts = []
            self._detail, self._total = detail, total
            if done:
                self._counts = [*self._counts[:1], (self._clock(), done)]
        self.tick()

    def note(self, detail: str) -> None:
        """Says what is being done in between, which leaves what is known of the pace."""
        with self._lock:
            self._detail = detail
        self.tick()

    def tick(self) -> None:
        """Prints a line if it is time for one."""
        with self._lock:
            now = self._clock()
            if now - self._printed >= self._every:
                self._printed = now
                self._write(self._line(now))

    def _line(self, now: float) -> str:
        subject = ": ".join(part for part in (self._what, self._detail) if part) or "working"
        return ", ".join([subject, f"{now - self._since:.0f} s", *self._left(now)])

    def _left(self, now: float) -> list[str]:
        """Returns how long the rest takes at the pace since the first piece, as far as that can be said."""
        if self._total is None or len(self._counts) < 2:
            return []
        (start, first), (end, done) = self._counts
        seconds = (end - start) / (done - first) * (self._total - done) - (now - end)
        return [f"about {max(seconds, 0):.0f} s left"] if done < self._total else []
