"""Records inputs and outputs of some component calls while a pipeline runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import Backend
from amodal.runtime.backends.proxy import BackendProxy, Batches, Results
from amodal.runtime.bundle.manifest import ComponentEntry
from amodal.runtime.families import Bundle


class Call(NamedTuple):
    """One call of a component: named arrays in, named arrays out."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


class Recorder(BackendProxy):
    """Runs on another backend and records calls.

    Of a repeated component it records the calls at the first, middle and last step of a task, of others the first; of
    calls made together (`map`), the first.

    Args:
        steps: of the sampler.

    Attributes:
        calls: by component.
    """

    def __init__(self, backend: Backend, bundle: Bundle, steps: int) -> None:
        super().__init__(backend)
        self.calls: dict[str, list[Call]] = {}
        self._keys = {bundle.files(key)[0]: key for key in bundle.manifest.components}
        self._steps = steps
        self._turns: dict[str, int] = {}

    def begin(self) -> None:
        """Begins a task: counts its calls from here, and keeps earlier recordings."""
        self._turns = {}

    def around(self, entry: ComponentEntry, files: list[Path], batches: Batches, run: Callable[[], Results]) -> Results:
        """See `BackendProxy.around`."""
        results = run()
        key, steps = self._keys[files[0]], self._steps
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        if turn in ({0, steps // 2, steps - 1} if entry.repeated else {0}):
            # Copies, because the sampler reuses its arrays.
            copies = [{name: np.array(value) for name, value in side[0].items()} for side in (batches, results)]
            self.calls.setdefault(key, []).append(Call(*copies))
        return results
