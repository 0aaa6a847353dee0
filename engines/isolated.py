"""Runs a command in a separate process with a time limit, isolating crashes and hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import IO

_KEPT = 200_000  # bytes of each output, from its end
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal; None if it exceeded its limit.
        seconds: wall time.
        out, err: the ends of its outputs.
    """

    code: int | None
    seconds: float
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0

    @property
    def trouble(self) -> str:
        """Describes the failure in a few words; empty if there was none."""
        if self.ok:
            return ""
        lines = [line for line in self.err.strip().splitlines() if line.strip()]
        last = f": {lines[-1].strip().removeprefix('Error: ')}" if lines else ""
        if self.code is None:
            return f"stopped after {self.seconds:.0f} s, its time limit{last}"
        if self.code < 0:
            with suppress(ValueError):
                return f"crashed with {signal.Signals(-self.code).name}{last}"
        return f"failed with exit code {self.code}{last}"


@contextmanager
def _signals_later() -> Iterator[None]:
    """Delays what the handlers of SIGINT and SIGTERM do until the block has ended."""
    came: list[int] = []
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    if current_thread() is not main_thread():
        handlers.clear()  # Python runs handlers in the main thread alone
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for late in came:
        handlers[signal.Signals(late)](late, None)


def run_isolated(
    command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None, cwd: str | None = None
) -> Ended:
    """Runs a command; after `limit` seconds, or on an interrupt, stops it with all its children.

    Args:
        environment: added to that of this process.
    """
    begin = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process, code = None, None  # type: subprocess.Popen[bytes] | None, int | None
        try:
            with _signals_later():  # one that came before `process` is known would leave it running
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env={**os.environ, **(environment or {})},
                    cwd=cwd,
                    start_new_session=True,  # so that its children can be stopped too
                )
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(limit)
        finally:
            if process is not None:
                _stop(process)
        return Ended(code, time.monotonic() - begin, _end_of(out), _end_of(err))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the process and what remains of its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _KEPT))
    return file.read().decode("utf-8", "replace")
