"""What backends on an NVIDIA GPU share: the current device and stream, CuPy's memory pool, a description."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .gpu import ALIGNMENT, Gpu, cuda_version, explained


class GpuBackend:
    """Base of the backends on one GPU; see `Backend`.

    Work is queued on a stream, the caller's or the backend's own. Nothing waits for the device: a result is ready when
    its stream has reached it.
    """

    lanes = 1

    def __init__(self, name: str, cupy: Any, gpu: Gpu) -> None:
        self.name, self.xp, self._gpu = name, cupy, gpu
        with cupy.cuda.Device(gpu.number):
            self._stream: Any = cupy.cuda.Stream(non_blocking=True)

    def _replaces(self, stream: Any) -> bool:
        """Whether `active` replaces the caller's stream by the backend's own."""
        return bool(stream.ptr != self._stream.ptr)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `Backend.active`: makes this GPU current, and a stream that waits for the caller's and it for that."""
        cuda = self.xp.cuda
        with explained(self.name, self._gpu), cuda.Device(self._gpu.number), ExitStack() as inside:
            outside = cuda.get_current_stream()
            replaced = self._replaces(outside)
            if replaced:
                self._stream.wait_event(outside.record())
                inside.enter_context(self._stream)
            yield
            if replaced:
                outside.wait_event(self._stream.record())

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`; waits for the stream."""
        with explained(self.name, self._gpu):
            return np.asarray(self.xp.asnumpy(array))

    def free_memory(self) -> int:
        """See `Backend.free_memory`."""
        with explained(self.name, self._gpu), self.xp.cuda.Device(self._gpu.number):
            self.empty_pool()
            return int(self.xp.cuda.runtime.memGetInfo()[0])

    def empty_pool(self) -> None:
        """Frees what CuPy's pool keeps of deleted arrays: the library's own allocations cannot use it."""
        self.xp.cuda.get_current_stream().synchronize()
        self.xp.get_default_memory_pool().free_all_blocks()

    def _describe_gpu(self) -> dict[str, str]:
        """The GPU and its CUDA versions, for `describe`."""
        runtime = self.xp.cuda.runtime
        return {
            "device": f"cuda:{self._gpu.number}",
            "gpu": self._gpu.name,
            "capability": f"sm{self._gpu.capability}",
            "cuda_driver": cuda_version(int(runtime.driverGetVersion())),
            "cuda_runtime": cuda_version(int(runtime.runtimeGetVersion())),
        }


def aligned(array: Any) -> Any:
    """The array, or a copy where it is a view that begins at an address that kernels cannot read from."""
    return array.copy() if int(array.data.ptr) % ALIGNMENT else array
