"""The stand-in libraries, loaded into this process, and what they counted."""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class FakeCuda:
    """Loads the libraries that `build.py` made, before ONNX Runtime looks for CUDA's."""

    def __init__(self, libraries: Sequence[Path]) -> None:
        self._core, *_ = loaded = [ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL) for library in libraries]
        self._loaded = loaded
        self._core.counts.restype = ctypes.c_char_p
        for name in ("bytes_now", "bytes_peak"):
            getattr(self._core, name).restype = ctypes.c_size_t

    def hold(self, size: int) -> None:
        """Gives the device that many bytes of memory in all."""
        self._core.set_device_bytes(ctypes.c_size_t(size))

    def forget(self) -> None:
        """Counts from zero, and the peak from what is allocated now."""
        self._core.forget_counts()

    @property
    def counts(self) -> Counter[str]:
        """Calls since `forget`, with `recorded` or `illegal` before the names of those made while recording."""
        return Counter(json.loads(self._core.counts()))

    @property
    def bytes_now(self) -> int:
        """Bytes of device memory that are allocated."""
        return int(self._core.bytes_now())

    @property
    def bytes_peak(self) -> int:
        """The most that were allocated at once since `forget`."""
        return int(self._core.bytes_peak())
