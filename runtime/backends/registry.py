"""The backends by name, each imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import BackendUnavailableError
from .backend import Availability, Backend

DEFAULT = "onnxruntime"
_MODULES = {
    DEFAULT: "amodal.runtime.backends.onnxruntime",
    "tensorrt_rtx": "amodal.runtime.backends.tensorrt",
    "tensorrt": "amodal.runtime.backends.tensorrt",
    "openvino": "amodal.runtime.backends.openvino",
}
ENGINE_BACKENDS = ("tensorrt_rtx", "tensorrt")
"""Backends that run engines on a GPU; the others run graphs."""


def names() -> list[str]:
    """Lists the backends that this version knows."""
    return list(_MODULES)


def availability(name: str, device: str | None = None) -> Availability:
    """Returns whether backend `name` can run here, on `device` where it supports several (`cuda`), or why not."""
    module = _module(name)
    found: Availability = module.availability(name) if device is None else module.availability(name, device)
    return found


def on_gpu(name: str, device: str | None = None) -> bool:
    """Returns whether backend `name` runs on a GPU, given `device` where it supports several."""
    return name in ENGINE_BACKENDS or (device or "").startswith("cuda")


def gpu_choices() -> list[tuple[str, str | None]]:
    """Lists the backends that use a GPU, each with the device to create it on."""
    return [(DEFAULT, "cuda"), *((name, None) for name in ENGINE_BACKENDS)]


def create_named(
    name: str, *, device: str | None = None, threads: int | None = None, vram: int | None = None
) -> Backend:
    """Creates a backend; never falls back to another one.

    Args:
        name: one of `names()`.
        device: `cpu`, `cuda`, `cuda:1` and so on; None for the backend's own, which for graphs is the CPU.
        threads: CPU threads; None for all cores, and on a GPU.
        vram: limit on GPU memory in bytes where graphs run on a GPU; engines have their memory plan.

    Raises:
        BackendUnavailableError: the backend is unknown, not installed, or has no such device.
        InputError: the backend has no such option.
    """
    options = {"vram": vram} if name == DEFAULT else {}
    backend: Backend = _module(name).create(name, device=device, threads=threads, **options)
    return backend


def _module(name: str) -> Any:
    if name not in _MODULES:
        raise BackendUnavailableError(
            f"backend {name!r} is unknown to this version; expected auto or one of {', '.join(_MODULES)}."
        )
    return import_module(_MODULES[name])
