"""Functions called in new processes, which measure only themselves and do not outlive a failure."""

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
    """Calls an importable function in a new process and returns its result; arguments and result are pickled.

    Raises:
        BackendError: the process was killed for memory, or crashed in a library.
        Exception: any exception of the function.
    """
    name = function.__name__.strip("_")
    with new_processes(1, name, 'try fewer frames or samples, or `memory="sequential"`') as pool:
        return pool.submit(function, *args).result()


@contextmanager
def new_processes(count: int, what: str, remedy: str) -> Iterator[ProcessPoolExecutor]:
    """Starts a pool of processes. If the block fails or is interrupted, they are killed at once.

    Args:
        what: the processes are for. remedy: what to try if one is killed or crashes.

    Raises:
        BackendError: a process was killed for memory, or crashed in a library.
    """
    before = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_ignore_interrupts)
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


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole group; a process of a pool would return it as its function's result and go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
