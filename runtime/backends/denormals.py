"""Denormals as zero while a network computes, and as they were for the thread that called.

Denormals appear as the noise level falls and cost tens of cycles each; the results do not see them. ONNX Runtime sets
the mode for good: on the threads of a session's pool, and on the thread that makes the process's first session, which
is the caller's, whose own arithmetic would lose denormals from then on. A thread that calls a session computes a share
of it, so it needs the mode while it does.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np

_ROOM = 64  # bytes; the largest `fenv_t` there is has 32


class _Place(NamedTuple):
    """Where a 32-bit control register lies in C's `fenv_t`, and its bits for denormals as zero."""

    offset: int
    bits: int


_PLACES = {"x86_64": _Place(28, 0x8040), "aarch64": _Place(0, 1 << 24)}  # MXCSR: FTZ and DAZ; FPCR: FZ


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Within it this thread takes denormals for zero; afterwards its mode is what it was.

    Where there is no glibc, or another processor, nothing is done: the mode is then what ONNX Runtime makes of it.
    """
    library = _library()
    if library is None:
        yield
        return
    before = _mode(library)
    library.fesetenv(_changed(before))
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _library() -> Any:
    """The C library, where the mode can be set by it, which is tried once."""
    if not sys.platform.startswith("linux") or platform.machine() not in _PLACES:
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        before = _mode(library)
    except (OSError, AttributeError):
        return None
    library.fesetenv(_changed(before))
    works = not _halved()
    library.fesetenv(before)
    return library if works else None


def _mode(library: Any) -> Any:
    mode = ctypes.create_string_buffer(_ROOM)
    library.fegetenv(mode)
    return mode


def _changed(mode: Any) -> Any:
    place = _PLACES[platform.machine()]
    changed = ctypes.create_string_buffer(mode.raw, _ROOM)
    register = ctypes.c_uint32.from_buffer(changed, place.offset)
    register.value |= place.bits
    return changed


def _halved() -> float:
    """Half of the smallest normal number, computed now."""
    return float((np.full(4, np.finfo(np.float32).smallest_normal) * np.float32(0.5))[0])
