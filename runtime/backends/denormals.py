"""Treats denormals as zero while a network computes, and restores the caller's mode afterwards.

Denormals appear as the noise level falls and cost tens of cycles each, without effect on results. ONNX Runtime sets the
mode permanently: on the threads of a session's pool, and on the thread that creates the process's first session. That
is the caller's, whose own arithmetic would lose denormals from then on. A thread that calls a session computes a share
of it, so it needs the mode during the call.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np

_ROOM = 64  # bytes; the largest known `fenv_t` has 32


# Offset of the control register in C's `fenv_t`, and its bits: MXCSR's FTZ and DAZ, FPCR's FZ.
_REGISTERS = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}


def denormals_as_zero() -> AbstractContextManager[None]:
    """Makes this thread treat denormals as zero within the block.

    Does nothing without glibc or on processors other than x86-64 and arm64: ONNX Runtime then decides the mode.
    """
    library = _library()
    return nullcontext() if library is None else _mode_set(library)


@contextmanager
def _mode_set(library: Any) -> Iterator[None]:
    before, changed = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)
    library.fegetenv(before)
    changed.raw = before.raw
    offset, bits = _REGISTERS[platform.machine()]
    ctypes.c_uint32.from_buffer(changed, offset).value |= bits
    library.fesetenv(changed)
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _library() -> Any:
    """Returns the C library if it can set the mode, which is tried once; else None."""
    if not sys.platform.startswith("linux") or platform.machine() not in _REGISTERS:
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        with _mode_set(library):
            halved = np.full(4, np.finfo(np.float32).smallest_normal) * np.float32(0.5)
    except (OSError, AttributeError):
        return None
    return None if halved.any() else library
