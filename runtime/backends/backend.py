"""The protocol that every backend implements, and importing a backend's library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..bundle.manifest import ComponentEntry
from ..errors import BackendUnavailableError


class EngineNeeds(NamedTuple):
    """The engines that a backend can run: built by this library version, for this GPU (`sm86`)."""

    version: str
    target: str


class Availability(NamedTuple):
    """Whether a backend can run here; `detail` describes it, `reason` says why it cannot."""

    usable: bool
    detail: str
    reason: str = ""


class Executable(Protocol):
    """A loaded component; owns its memory until `close`."""

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once; takes and returns arrays by name."""

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Runs once per element, as many at a time as there are lanes; returns results in order."""
        return [self(inputs) for inputs in batches]

    def close(self) -> None:
        """Frees the memory; further calls do nothing."""


class Backend(Protocol):
    """Runs components on one device. Attributes and methods with defaults suit a CPU.

    Attributes:
        xp: array module of inputs and outputs: numpy or CuPy.
        lanes: best number of concurrent calls of one component; 1 where batching is faster.
        engines: the engines it can run; None for a backend that runs graphs.
        on_gpu: whether runs are cut as for a GPU, with more frames in one call, which are the shapes of engines.
    """

    name: str
    xp: Any = np
    lanes: int = 1
    engines: EngineNeeds | None = None
    on_gpu: bool = False

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """Loads a component from its files, the graph first, for up to `lanes` concurrent calls.

        Raises:
            BackendError: the files cannot be loaded.
        """

    def active(self) -> AbstractContextManager[None]:
        """Makes the device current on this thread; required around running, loading and closing."""
        return nullcontext()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """Returns an array of `xp` as numpy's, copied where needed."""
        return np.asarray(array)

    def free_memory(self) -> int | None:
        """Returns the bytes free on the GPU, including what its own pool keeps; None on a CPU."""
        return None

    def reserve_activations(self, size: int) -> None:
        """Takes at least `size` bytes for activations when the first component runs, so that they are never moved."""
        return  # a body, or the protocol would have it abstract

    def describe(self) -> dict[str, str]:
        """Returns name, version and settings, for result files."""


def import_library(module: str, extra: str, subject: str) -> Any:
    """Imports an optional library that `extra` of amodal installs; `subject` begins the message.

    Raises:
        BackendUnavailableError: it is not installed, or broken.
    """
    try:
        return import_module(module)
    except Exception as error:  # a broken installation raises anything: OSError, RuntimeError
        raise BackendUnavailableError(
            f'{subject} cannot be imported ({error}); install it with `pip install "amodal[{extra}]"`.'
        ) from error
