"""Functions called in new processes, so that what they measure is their own, and that nothing outlives a failure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from amodal.runtime.errors import BackendError

_T = TypeVar("_T")


def in_new_process(function: Callable[..., _T], *args: Any) -> _T:
    """Calls an importable function with arguments that can be pickled, and waits.

    Raises:
        BackendError: the process ended without an answer: killed for memory, or by a fault of a library.
        Exception: what the function raises.
    """
    name = function.__name__.strip("_")
    with new_processes(1, name, 'try fewer frames or samples, or `memory="sequential"`') as pool:
        return pool.submit(function, *args).result()


@contextmanager
def new_processes(count: int, what: str, remedy: str) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; if what is done with it fails or is interrupted, they end at once, whatever they run.

    Args:
        what: they are for. remedy: what to try where one of them ended.

    Raises:
        BackendError: one of them ended without an answer: killed for memory, or by a fault of a library.
    """
    before = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_leave_interrupts)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - before:
            process.kill()
        if isinstance(error, BrokenProcessPool):
            raise BackendError(
                f"the process for {what} ended without an answer: killed for memory, or by a fault of a library; "
                f"{remedy}."
            ) from None
        raise
    pool.shutdown()


def _leave_interrupts() -> None:
    """Ctrl-C reaches the whole group, and a pool's process would take it for its function's result and go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
