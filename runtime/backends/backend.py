"""What a backend is: the protocol that each one implements, and what is said about one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..bundle.manifest import ComponentEntry


class EngineNeeds(NamedTuple):
    """The engines that a backend can run: those built by its library's version, for its GPU (`sm86`)."""

    version: str
    target: str


class Availability(NamedTuple):
    """Whether a backend can run here; `reason` says why not, `detail` what it is."""

    usable: bool
    detail: str
    reason: str = ""


class Executable(Protocol):
    """A component ready to run; owns its memory until `close`."""

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once: named arrays in, named arrays out."""

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Runs once per element, as many at a time as there are lanes; results in order."""

    def close(self) -> None:
        """Frees its memory; calling it again does nothing."""


class Backend(Protocol):
    """Executes components on one device.

    Attributes:
        xp: the array module of its inputs and outputs: numpy or CuPy.
        lanes: how many calls of one component are best run side by side; 1 where batching is better.
        engines: the engines it can run; None for a backend that runs graphs.
    """

    name: str
    xp: Any
    lanes: int
    engines: EngineNeeds | None

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """Loads a component from its files, the graph first, to run in up to `lanes` calls at a time.

        Raises:
            BackendError: the files cannot be loaded.
        """

    def active(self) -> AbstractContextManager[None]:
        """Makes the backend's device current on this thread; enter it to run, load or close anything."""

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """Copies one of its arrays to numpy where needed."""

    def free_memory(self) -> int | None:
        """Bytes free on its GPU now, including what its own pool keeps; None on a CPU."""

    def describe(self) -> dict[str, str]:
        """Name, version and settings, for result files."""
