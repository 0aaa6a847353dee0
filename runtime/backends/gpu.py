"""One NVIDIA GPU through CuPy: finding it, and turning its failures into messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from ..errors import AmodalError, BackendError, BackendUnavailableError, MemoryBudgetError, first_line

ALIGNMENT = 256
"""Bytes: CUDA's allocations begin at a multiple of it, which kernels that read several values at once rely on."""


class Gpu(NamedTuple):
    """A GPU: its number, its name, and its compute capability as in `86`."""

    number: int
    name: str
    capability: str


def device_number(backend: str, device: str | None) -> int | None:
    """`cuda:1` -> 1; None for `cuda` or nothing, which is the current device.

    Raises:
        BackendUnavailableError: it is no CUDA device.
    """
    found = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if found is None:
        raise BackendUnavailableError(
            f"backend {backend} has no device {device!r}; expected cuda, or cuda:1 and so on."
        )
    return int(found[1]) if found[1] else None


def import_cupy(backend: str, extra: str) -> Any:
    """Imports CuPy; `extra` of amodal installs it.

    Raises:
        BackendUnavailableError: it is not installed, or broken.
    """
    try:
        return import_module("cupy")
    except Exception as error:  # what a broken installation raises is anything: OSError, RuntimeError
        raise BackendUnavailableError(
            f"backend {backend} needs CuPy, which cannot be imported ({error}); install it with "
            f'`pip install "amodal[{extra}]"`.'
        ) from error


def find_gpu(cupy: Any, backend: str, number: int | None = None) -> Gpu:
    """Finds the GPU with a number; None for the current one.

    Raises:
        BackendUnavailableError: there is none, or its driver is too old for CuPy's CUDA.
    """
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
    """Runs a kernel on the GPU, which raises what CuPy raises where NVRTC is missing."""
    with cupy.cuda.Device(gpu.number):
        bool((cupy.zeros(1) + 1).all())


def _no_gpu(cupy: Any, backend: str, error: Exception) -> str:
    """Why there is no GPU; without any driver, CUDA reports an insufficient driver of version 0."""
    try:
        driver = int(cupy.cuda.runtime.driverGetVersion())
        needed = int(cupy.cuda.runtime.runtimeGetVersion())
    except Exception:  # noqa: BLE001 (then the first error is all there is to report)
        return f"backend {backend} finds no GPU ({first_line(error)})."
    if not driver:
        return f"backend {backend} finds no GPU: there is no NVIDIA driver here ({first_line(error)})."
    if driver // 1000 < needed // 1000:
        return (
            f"backend {backend} cannot use the GPU: its driver is too old (it supports CUDA {cuda_version(driver)}, "
            f"CuPy here needs {cuda_version(needed)}); update the NVIDIA driver."
        )
    return f"backend {backend} finds no GPU ({first_line(error)})."


def cuda_version(number: int) -> str:
    """13020 -> `13.2`."""
    return f"{number // 1000}.{number % 1000 // 10}"


@contextmanager
def explained(backend: str, gpu: Gpu) -> Iterator[None]:
    """Turns errors of the device, which come late from whichever call waits for it next, into errors of ours.

    Raises:
        MemoryBudgetError: its memory ran out.
        BackendError: anything else that CuPy reports.
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
    """The message for a GPU that ran out of memory."""
    return (
        f"GPU memory ran out on the {gpu.name} ({reason}); close other programs, or run with "
        '`memory="sequential"` or `cfg_rows="separate"`.'
    )
