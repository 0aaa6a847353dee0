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

from amodal.runtime.errors import BackendUnavailableError
from amodal.runtime.manifest import ComponentEntry


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

    def describe(self) -> dict[str, str]:
        """Name, version and settings, for result files."""


class Availability(NamedTuple):
    """Whether a backend can run here; `reason` says why not, `detail` what it is."""

    usable: bool
    detail: str
    reason: str = ""


_REGISTRY = {
    "onnxruntime": "amodal.runtime.backends.onnxruntime",
    "tensorrt_rtx": "amodal.runtime.backends.tensorrt",
    "tensorrt": "amodal.runtime.backends.tensorrt",
}
DEFAULT, AUTO = "onnxruntime", "auto"


def names() -> list[str]:
    """Names of the backends this version knows."""
    return list(_REGISTRY)


def preferred() -> list[str]:
    """The same, those that need more of a machine first."""
    return sorted(_REGISTRY, key=lambda name: name == DEFAULT)


def availability(name: str) -> Availability:
    """Whether the backend `name` can run here, and why not."""
    result: Availability = _module(name).availability(name)
    return result


def create(name: str = DEFAULT, *, device: str | None = None, threads: int | None = None) -> Backend:
    """Makes a backend.

    Args:
        name: one of `names()`, or `auto` for the first that is usable here.
        device: `cpu` for graphs; `cuda`, or `cuda:1` and so on, for engines; None for what the backend runs on.
        threads: CPU threads; None for all cores.

    Raises:
        BackendUnavailableError: it is unknown, not installed, or has no such device.
    """
    if name == AUTO:
        reasons = []
        for candidate in preferred():
            found = availability(candidate)
            if found.usable:
                return create(candidate, device=device, threads=threads)
            reasons.append(f"{candidate}: {found.reason}")
        raise BackendUnavailableError(f"no backend is usable here ({'; '.join(reasons)}).")
    backend: Backend = _module(name).create(name, device=device, threads=threads)
    return backend


def _module(name: str) -> Any:
    if name not in _REGISTRY:
        raise BackendUnavailableError(
            f"backend {name!r} is unknown to this version; expected auto or one of {', '.join(_REGISTRY)}."
        )
    return import_module(_REGISTRY[name])
