"""Records inputs and outputs of some component calls while a pipeline runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import Backend, Executable
from amodal.runtime.backends.proxy import BackendProxy, ExecutableProxy
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
        self._repeated_turns = frozenset({0, steps // 2, steps - 1})
        self._turns: dict[str, int] = {}

    def begin(self) -> None:
        """Begins a task: counts its calls from here, and keeps earlier recordings."""
        self._turns = {}

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        turns = self._repeated_turns if entry.repeated else frozenset({0})
        return _Recorded(self._backend.load(entry, files, lanes), self, self._keys[files[0]], turns)

    def record(self, key: str, turns: frozenset[int], inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Records a call of a component if its turn is among `turns`."""
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        if turn in turns:
            # Copies, because the sampler reuses its arrays.
            copies = [{name: np.array(value) for name, value in values.items()} for values in (inputs, outputs)]
            self.calls.setdefault(key, []).append(Call(*copies))


class _Recorded(ExecutableProxy):
    def __init__(self, executable: Executable, recorder: Recorder, key: str, turns: frozenset[int]) -> None:
        super().__init__(executable)
        self._recorder, self._key, self._turns = recorder, key, turns

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = self._executable(inputs)
        self._recorder.record(self._key, self._turns, inputs, outputs)
        return outputs

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        results = self._executable.map(batches)
        self._recorder.record(self._key, self._turns, batches[0], results[0])
        return results
