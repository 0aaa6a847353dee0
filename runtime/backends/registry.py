"""The backends by name, each imported on first use, and the choice of one with `auto`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from ..errors import BackendUnavailableError, EngineError, EngineNotFoundError, InputError, first_line
from .backend import Availability, Backend

_LOG = logging.getLogger(__name__)

AUTO, DEFAULT = "auto", "onnxruntime"
ENGINE_BACKENDS = ("tensorrt_rtx", "tensorrt")
"""Backends that run engines on a GPU; the others run graphs."""
_MODULES = {
    DEFAULT: "amodal.runtime.backends.onnxruntime",
    "tensorrt_rtx": "amodal.runtime.backends.tensorrt",
    "tensorrt": "amodal.runtime.backends.tensorrt",
    "openvino": "amodal.runtime.backends.openvino",
}

Opened = TypeVar("Opened")


def names() -> list[str]:
    """Lists the backends that this version knows."""
    return list(_MODULES)


def availability(name: str, device: str | None = None) -> Availability:
    """Returns whether backend `name` can run here, on `device` where it supports several (`cuda`), or why not."""
    module = _module(name)
    try:
        return Availability(True, module.probe(name, device))
    except (BackendUnavailableError, InputError) as error:
        return Availability(False, "", str(error))
    except Exception as error:  # noqa: BLE001 (whatever a driver raises is the reason)
        return Availability(False, "", f"backend {name} cannot be used here ({first_line(error)}).")


def on_gpu(name: str, device: str | None = None) -> bool:
    """Returns whether backend `name` runs on a GPU, given `device` where it supports several."""
    return name in ENGINE_BACKENDS or (device or "").startswith("cuda")


def gpu_choices() -> list[tuple[str, str | None]]:
    """Lists the backends that use a GPU, each with the device to create it on."""
    return [(DEFAULT, "cuda"), *((name, None) for name in ENGINE_BACKENDS)]


def preferred(device: str | None = None) -> list[str]:
    """Lists the backends that `auto` tries: those that run engines, which need a GPU, then the default.

    `openvino` is not among them: it rounds to bfloat16, which the caller must choose.
    """
    return [*(ENGINE_BACKENDS if (device or "cuda").startswith("cuda") else ()), DEFAULT]


class Choice(NamedTuple):
    """A backend and its options; see `create`."""

    name: str = DEFAULT
    device: str | None = None
    threads: int | None = None
    vram: int | None = None

    def create(self) -> Backend:
        """Creates the backend; never falls back to another one."""
        options = {"vram": self.vram} if self.name == DEFAULT else {}
        backend: Backend = _module(self.name).create(self.name, device=self.device, threads=self.threads, **options)
        return backend


def create(
    name: str = DEFAULT, *, device: str | None = None, threads: int | None = None, vram: int | None = None
) -> Backend:
    """Creates a backend by name, or with `auto` the first usable one.

    Args:
        name: `auto`, or one of `names()`.
        device: `cpu`, `cuda`, `cuda:1` and so on; None for the backend's own, which for graphs is the CPU.
        threads: CPU threads; None for all cores, and on a GPU.
        vram: limit on GPU memory in bytes where graphs run on a GPU; engines have their memory plan.

    Raises:
        BackendUnavailableError: the backend is unknown, not installed, or has no such device; or none is usable.
        InputError: the backend has no such option.
    """
    return open_chosen(Choice(name, device, threads, vram), Choice.create)


def open_chosen(choice: Choice, opening: Callable[[Choice], Opened]) -> Opened:
    """Calls `opening` with the choice; for `auto` with the first preferred backend that is usable and has its engines.

    `auto` drops options that a backend does not take: threads on a GPU, and `vram` on a CPU. It warns of engines that
    exist but cannot be used.

    Raises:
        BackendUnavailableError: no backend is usable; the message says why for each.
        EngineError: the usable backends have no usable engines.
    """
    if choice.name != AUTO:
        return opening(choice)
    reasons: list[str] = []
    refused: EngineError | None = None
    for name in preferred(choice.device):
        found = availability(name)
        if not found.usable:
            reasons.append(f"{name}: {found.reason}")
            _LOG.info("%s", found.reason)
            continue
        gpu = on_gpu(name, choice.device)
        tried = Choice(name, choice.device, None if gpu else choice.threads, choice.vram if gpu else None)
        try:
            return opening(tried)
        except EngineError as error:
            refused = refused or error
            if not isinstance(error, EngineNotFoundError):
                warnings.warn(f"{name} was passed over: {error}", stacklevel=3)
    raise refused or BackendUnavailableError(f"no backend is usable here ({'; '.join(reasons)}).")


def _module(name: str) -> Any:
    if name not in _MODULES:
        raise BackendUnavailableError(
            f"backend {name!r} is unknown to this version; expected auto or one of {', '.join(_MODULES)}."
        )
    return import_module(_MODULES[name])
