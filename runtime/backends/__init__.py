"""Backends: what executes components. A small registry with lazy imports.

A backend asked for by name and missing is an error, never a silent fallback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..bundle.manifest import ComponentEntry
from ..errors import BackendUnavailableError


class EngineNeeds(NamedTuple):
    """Which engines a backend can run: those of its library's version, for its GPU (`sm86`)."""

    version: str
    target: str


class Executable(Protocol):
    """A component ready to run; owns its memory until `close`."""

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once: named arrays in, named arrays out."""

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Runs once per element, as many at a time as there are lanes; results in order."""

    def close(self) -> None:
        """Gives the memory back; calling again does nothing."""


class Backend(Protocol):
    """What executes components on one device."""

    name: str
    xp: Any
    lanes: int  # how many calls of one component are best run side by side; 1 where batching is better
    engines: EngineNeeds | None  # what engines it runs; None for one that runs graphs

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """Loads a component from its files, the graph first, to run in up to `lanes` calls at a time.

        Raises:
            BackendError: the files cannot be loaded.
        """

    def active(self) -> AbstractContextManager[None]:
        """Within it this thread uses the backend's device: around everything that runs, loads or closes."""

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """One of its arrays as numpy's."""

    def free_memory(self) -> int | None:
        """Bytes that are free on its GPU now, what its own pool keeps included; None on a CPU."""

    def describe(self) -> dict[str, str]:
        """Name, version and settings, for result files."""


class Availability(NamedTuple):
    """Whether a backend can run here; `reason` says why not, `detail` what it is."""

    usable: bool
    detail: str
    reason: str = ""


_REGISTRY = {
    "onnxruntime": "amodal.runtime.backends.onnxruntime.cpu",
    "tensorrt_rtx": "amodal.runtime.backends.tensorrt",
    "tensorrt": "amodal.runtime.backends.tensorrt",
    "openvino": "amodal.runtime.backends.openvino",
}
DEFAULT, AUTO = "onnxruntime", "auto"
_ENGINES = ("tensorrt_rtx", "tensorrt")


def names() -> list[str]:
    """Names of the backends this version knows."""
    return list(_REGISTRY)


def preferred(device: str | None = None) -> list[str]:
    """What `auto` tries, in turn: those that run engines, which need a GPU, then the default. `openvino` rounds to
    bfloat16, and is for whoever asks for it."""
    return [*(_ENGINES if (device or "cuda").startswith("cuda") else ()), DEFAULT]


def availability(name: str, device: str | None = None) -> Availability:
    """Whether the backend `name` can run here, and why not; on a device, for one that has several (`cuda`)."""
    module = _module(name)
    found: Availability = module.availability(name) if device is None else module.availability(name, device)
    return found


def on_gpu(name: str, device: str | None = None) -> bool:
    """Whether the backend `name` runs on a GPU, on this device where it has several."""
    return name in _ENGINES or (device or "").startswith("cuda")


def gpu_choices() -> list[tuple[str, str | None]]:
    """The backends that use a GPU, each with the device to ask it for."""
    return [(DEFAULT, "cuda"), *((name, None) for name in _ENGINES)]


def create(
    name: str = DEFAULT, *, device: str | None = None, threads: int | None = None, vram: int | None = None
) -> Backend:
    """Makes a backend.

    Args:
        name: one of `names()`, or `auto` for the first that is usable here.
        device: `cpu`, or `cuda`, `cuda:1` and so on; None for what the backend runs on, which for graphs is the CPU.
        threads: CPU threads; None for all cores. On a GPU there are none: `auto` leaves them out.
        vram: the most GPU memory to take, in bytes, where graphs run on a GPU; engines have their memory plan.

    Raises:
        BackendUnavailableError: it is unknown, not installed, or has no such device.
    """
    if name == AUTO:
        reasons = []
        for candidate in preferred(device):
            found = availability(candidate, device if candidate == DEFAULT else None)
            if found.usable:
                threads = None if on_gpu(candidate, device) else threads
                return create(candidate, device=device, threads=threads, vram=vram)
            reasons.append(f"{candidate}: {found.reason}")
        raise BackendUnavailableError(f"no backend is usable here ({'; '.join(reasons)}).")
    options = {"vram": vram} if name == DEFAULT else {}
    backend: Backend = _module(name).create(name, device=device, threads=threads, **options)
    return backend


def _module(name: str) -> Any:
    if name not in _REGISTRY:
        raise BackendUnavailableError(
            f"backend {name!r} is unknown to this version; expected auto or one of {', '.join(_REGISTRY)}."
        )
    return import_module(_REGISTRY[name])
