"""A function called in a new process, so that what it measures is its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from amodal.runtime.errors import BackendError

_T = TypeVar("_T")


def in_new_process(function: Callable[..., _T], *args: Any) -> _T:
    """Calls an importable function with arguments that can be pickled, and waits.

    Raises:
        BackendError: the process ended without an answer: killed for memory, or by a fault of a library.
        Exception: what the function raises.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise BackendError(
                f"the process for {function.__name__.strip('_')} ended without an answer: killed for memory, or by a "
                "fault of a library; try fewer frames or samples, or --memory sequential."
            ) from None
