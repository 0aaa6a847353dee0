"""One NVIDIA GPU through CuPy: finding it, explaining its failures, and the base of the backends that run on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import AmodalError, BackendError, BackendUnavailableError, InputError, MemoryBudgetError, first_line
from .backend import import_library

ALIGNMENT = 256
"""Bytes. CUDA aligns allocations to it, and vectorised kernels rely on that."""

_OLDEST_DRIVERS = {12: 525, 13: 580}
"""For Linux, by CUDA's major version (NVIDIA's table of minor version compatibility)."""


class Gpu(NamedTuple):
    """A GPU with its compute capability as in `86`."""

    number: int
    name: str
    capability: str


def gpu_number(backend: str, device: str | None, threads: int | None = None) -> int | None:
    """Returns the number in a device, `cuda:1`; None for the current GPU.

    Raises:
        BackendUnavailableError: it is not a GPU's name.
        InputError: `threads` were given.
    """
    if threads is not None:
        raise InputError(f"`threads` is for a CPU; leave it out for {backend} on a GPU.", field="threads")
    found = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if found is None:
        raise BackendUnavailableError(
            f"backend {backend} has no device {device!r}; expected cuda, or cuda:1 and so on."
        )
    return int(found[1]) if found[1] else None


def open_gpu(backend: str, extra: str, device: str | None) -> tuple[Any, Gpu]:
    """Returns CuPy, which `extra` of amodal installs, and the GPU of a device: `cuda:1`, or the current one.

    Raises:
        BackendUnavailableError: CuPy cannot be imported, or there is no such GPU.
    """
    number = gpu_number(backend, device)
    cupy = import_library("cupy", extra, f"backend {backend} needs CuPy, which")
    return cupy, find_gpu(cupy, backend, number)


def find_gpu(cupy: Any, backend: str, number: int | None = None) -> Gpu:
    """Finds a GPU by number, None for the current one; raises BackendUnavailableError if there is none."""
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise BackendUnavailableError(_no_gpu(cupy, backend, error)) from error
    chosen = int(cupy.cuda.Device().id) if number is None and count else number or 0
    if chosen >= count:
        raise BackendUnavailableError(f"backend {backend} has no GPU {chosen}; {count} are here.")
    properties = cupy.cuda.runtime.getDeviceProperties(chosen)
    found = properties["name"]
    label = found.decode() if isinstance(found, bytes) else str(found)
    return Gpu(chosen, label, str(cupy.cuda.Device(chosen).compute_capability))


def try_kernel(cupy: Any, gpu: Gpu) -> None:
    """Runs a kernel on the GPU; raises CuPy's error where NVRTC is missing."""
    with cupy.cuda.Device(gpu.number):
        bool((cupy.zeros(1) + 1).all())


def _no_gpu(cupy: Any, backend: str, error: Exception) -> str:
    # Without any driver, CUDA reports an insufficient driver of version 0.
    try:
        driver = int(cupy.cuda.runtime.driverGetVersion())
        needed = int(cupy.cuda.runtime.runtimeGetVersion())
    except Exception:  # noqa: BLE001 (only the first error can be reported)
        return f"backend {backend} finds no GPU ({first_line(error)})."
    if not driver:
        return f"backend {backend} finds no GPU: there is no NVIDIA driver here ({first_line(error)})."
    if driver // 1000 < needed // 1000:
        return (
            f"backend {backend} cannot use the GPU: its driver is too old (it supports CUDA {cuda_version(driver)}, "
            f"CuPy here needs {cuda_version(needed)}); update the NVIDIA driver{driver_for(cupy)}."
        )
    return f"backend {backend} finds no GPU ({first_line(error)})."


def driver_for(cupy: Any) -> str:
    """Names the oldest driver for CuPy's CUDA, to end "update the driver" with; empty where it is not known."""
    oldest = _OLDEST_DRIVERS.get(int(cupy.cuda.runtime.runtimeGetVersion()) // 1000)
    return f" to {oldest} or later" if oldest else ""


def cuda_version(number: int) -> str:
    """Formats CUDA's version number: 13020 -> `13.2`."""
    return f"{number // 1000}.{number % 1000 // 10}"


@contextmanager
def explained(backend: str, gpu: Gpu) -> Iterator[None]:
    """Turns device errors into amodal's: MemoryBudgetError when memory ran out, else BackendError.

    Device errors are asynchronous: the next call that waits for the device raises them.
    """
    try:
        yield
    except AmodalError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith("cupy"):
            raise
        if "OutOfMemory" in type(error).__name__ or "out of memory" in str(error).lower():
            raise MemoryBudgetError(out_of_memory(gpu, first_line(error))) from error
        raise BackendError(f"{backend} failed on the {gpu.name}: {first_line(error)}") from error


def out_of_memory(gpu: Gpu, reason: str) -> str:
    """Returns the message for a GPU that ran out of memory."""
    return (
        f"GPU memory ran out on the {gpu.name} ({reason}); close other programs, or run with "
        '`memory="sequential"` or `cfg_rows="separate"`.'
    )


class GpuBackend:
    """Base of the backends on one GPU; see `Backend`.

    Work is queued on the caller's stream or the backend's own, without waiting: a result is ready when its stream has
    reached it.
    """

    lanes, on_gpu = 1, True

    def __init__(self, name: str, cupy: Any, gpu: Gpu) -> None:
        self.name, self.xp, self._gpu = name, cupy, gpu
        with cupy.cuda.Device(gpu.number):
            self._stream: Any = cupy.cuda.Stream(non_blocking=True)

    def _replaces(self, stream: Any) -> bool:
        """Whether `active` replaces the caller's stream by the backend's own."""
        return bool(stream.ptr != self._stream.ptr)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `Backend.active`; a stream of the backend's own waits for the caller's, which in turn waits for it."""
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
        """Frees memory of deleted arrays that CuPy's pool keeps and the inference library cannot use."""
        self.xp.cuda.get_current_stream().synchronize()
        self.xp.get_default_memory_pool().free_all_blocks()

    def reserve_activations(self, size: int) -> None:
        """See `Backend.reserve_activations`; where components allocate for themselves, there is nothing to reserve."""

    def _describe_gpu(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        return {
            "device": f"cuda:{self._gpu.number}",
            "gpu": self._gpu.name,
            "capability": f"sm{self._gpu.capability}",
            "cuda_driver": cuda_version(int(runtime.driverGetVersion())),
            "cuda_runtime": cuda_version(int(runtime.runtimeGetVersion())),
        }


def aligned(xp: Any, value: Any, dtype: Any) -> Any:
    """Returns an array that kernels can read: on the device, of a dtype, contiguous, aligned; a copy only if needed."""
    array = xp.ascontiguousarray(xp.asarray(value, dtype=dtype))
    return array.copy() if int(array.data.ptr) % ALIGNMENT else array
