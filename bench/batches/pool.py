"""Workers in processes of this machine, a unit at a time each; one that dies is replaced."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from amodal.runtime.errors import BackendError

from .store import Record
from .work import Job, Unit, Worker

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_STARTS = 3


@dataclass(frozen=True)
class Seat:
    """What a worker has for itself: environment variables, and cores; None for all."""

    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] | None = None


class _Process:
    """A worker's process, and the unit it is at."""

    def __init__(self, job: Job, seat: Seat) -> None:
        context = get_context("spawn")
        self.unit: Unit | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(job, seat, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, unit: Unit) -> None:
        self.unit = unit
        with suppress(OSError):  # it died; the pipe's end is read next
            self.pipe.send(unit)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_here(job: Job, units: Iterable[Unit], seats: Sequence[Seat]) -> Iterator[Record]:
    """Yields the answers of workers, one for each seat, as they come, with the worker's memory as `rss` in bytes.

    At its end, whatever that is, all workers are killed at once: what they were at is done again by the next run.

    Raises:
        BackendError: workers die before they take a unit.
    """
    waiting = deque(units)
    processes: list[_Process | None] = [None] * len(seats)
    failed = 0
    try:
        for place in range(min(len(seats), len(waiting))):
            processes[place] = _started(job, seats[place], waiting)
        while busy := {p.pipe: i for i, p in enumerate(processes) if p is not None and p.unit is not None}:
            for pipe in wait(list(busy)):
                place = busy[pipe]  # type: ignore[index]
                process = processes[place]
                assert process is not None
                unit = process.unit
                assert unit is not None
                try:
                    answer: Record = process.pipe.recv()
                    failed, process.unit = 0, None
                except (EOFError, OSError):
                    failed += 1
                    waiting.appendleft(unit)
                    process.end()
                    if failed > _STARTS * len(seats) * (job.retries + 2):
                        raise BackendError(
                            f"{failed} workers in a row ended without an answer: killed for memory, or by a fault of a "
                            "library; use fewer `workers`."
                        ) from None
                    processes[place] = _started(job, seats[place], waiting)
                    continue
                if waiting:
                    process.give(waiting.popleft())
                yield answer
    finally:
        for left in processes:
            if left is not None:
                left.end()


def _started(job: Job, seat: Seat, waiting: deque[Unit]) -> _Process:
    process = _Process(job, seat)
    process.give(waiting.popleft())
    return process


def _serve(job: Job, seat: Seat, pipe: Connection, parent: int) -> None:
    """Answers units until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent kills its workers
    _die_with(parent)
    os.environ.update(seat.environment)
    if seat.cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, seat.cores)
    worker = Worker(job)
    with suppress(EOFError, OSError):
        while True:
            answer = worker.answer(pipe.recv())
            pipe.send({**answer, "rss": resident_bytes()})


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent is killed, so that a run that goes on finds nobody at work."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def resident_bytes() -> int:
    """Returns how much memory this process holds; 0 where that cannot be read."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def seats_for(workers: int, gpus: Sequence[str], cores: Sequence[int]) -> list[Seat]:
    """Shares GPUs out among workers, in turns, or else the cores in groups where there are enough."""
    if gpus:
        return [Seat({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}) for i in range(workers)]
    if workers == 1 or workers > len(cores):
        return [Seat() for _ in range(workers)]
    return [Seat(cores=tuple(cores[i::workers])) for i in range(workers)]


def usable_gpus(listed: Sequence[Any]) -> list[str]:
    """Returns the GPUs that workers may use, as CUDA names them: those of CUDA_VISIBLE_DEVICES, else all `listed`."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    return [str(number) for number in range(len(listed))]
