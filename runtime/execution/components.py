"""Loads the components of a bundle, all of them or one at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from ..backends import Backend, Executable
from ..bundle.reading import Bundle
from ..errors import BackendError, InputError
from ..progress import Progress, silent

_LOG = logging.getLogger(__name__)

Memory = Literal["resident", "sequential"]
Timings = dict[str, float]


class Source(Protocol):
    """Where a backend gets a component's files from: a bundle, or a build of its engines."""

    def files(self, component: str) -> list[Path]:
        """Returns the files, the graph or engine first."""

    def verify(self, component: str) -> None:
        """Compares the files with their hashes."""


class Components:
    """A bundle's components on one backend.

    Args:
        memory: `resident` keeps components loaded, `sequential` holds one at a time.
        source: None for the bundle's graphs, or a build of its engines.
        verify: compare a component's files with their hashes before loading.
        progress: called with a component's kind and its phase: `check` (its hashes), `load` or `run`.

    Attributes:
        timings: seconds since the last `start_timing`, by component; `load` is the time spent loading.
        rehearsal: make only one call per lane of calls with the same input shapes, and use its result for the others.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        memory: Memory = "resident",
        *,
        source: Source | None = None,
        verify: bool = True,
        progress: Progress = silent,
    ) -> None:
        if memory not in ("resident", "sequential"):
            raise InputError(f"memory {memory!r} is unknown; expected resident or sequential.")
        self.bundle, self.backend, self.memory = bundle, backend, memory
        self.timings: Timings = {}
        self.rehearsal = False
        self._source: Source = source or bundle
        self._verify = verify
        self._progress = progress
        self._loaded: dict[tuple[str, int], Executable] = {}
        self._closed = False

    @property
    def lanes(self) -> int:
        """Number of concurrent calls of a component; one in `sequential` memory."""
        return self.backend.lanes if self.memory == "resident" else 1

    @contextmanager
    def use(self, key: str, calls: int = 1) -> Iterator[Component]:
        """Loads a component unless it is loaded; in `sequential` memory closes it afterwards.

        Args:
            calls: number of independent calls that it will get at once.
        """
        lanes = min(self.lanes, calls)
        if self._closed:
            raise BackendError("the model was closed; load the bundle again with amodal.load.")
        kind = self.bundle.component(key).kind
        executable = self._loaded.get((key, lanes))
        if executable is None:
            for other in [k for k in self._loaded if k[0] == key]:  # loaded for another number of calls
                self._loaded.pop(other).close()
            start = time.perf_counter()
            if self._verify:
                self._progress(kind, "check")
                self._source.verify(key)
            self._progress(kind, "load")
            executable = self.backend.load(self.bundle.component(key), self._source.files(key), lanes)
            seconds = time.perf_counter() - start
            self._add("load", seconds)
            _LOG.info("loaded %s (%.1f MB) in %.2f s", key, self.bundle.component(key).bytes / 1e6, seconds)
        if self.memory == "resident":
            self._loaded[key, lanes] = executable
        self._progress(kind, "run")
        try:
            yield Component(executable, kind, self, lanes)
        finally:
            if self.memory == "sequential":
                executable.close()
                _LOG.debug("closed %s", key)

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Within the block, a run makes every kind of call only once; its results are meaningless."""
        self.rehearsal = True
        try:
            yield
        finally:
            self.rehearsal = False

    def start_timing(self) -> None:
        """Sets all timings to zero."""
        self.timings = {}

    def _add(self, name: str, seconds: float) -> None:
        self.timings[name] = self.timings.get(name, 0.0) + seconds

    def close(self) -> None:
        """Closes every component; further calls do nothing."""
        self._closed = True
        while self._loaded:
            self._loaded.popitem()[1].close()

    def __enter__(self) -> Components:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Component:
    """One loaded component, timed."""

    def __init__(self, executable: Executable, kind: str, owner: Components, lanes: int = 1) -> None:
        self._executable, self._kind, self._owner, self._lanes = executable, kind, owner, lanes

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs it once; takes and returns arrays by name."""
        start = time.perf_counter()
        result = self._executable(inputs)
        self._owner._add(self._kind, time.perf_counter() - start)
        return result

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Runs it once per element, concurrently where that is faster; returns results in order."""
        start = time.perf_counter()
        results = self._rehearse(batches) if self._owner.rehearsal else self._executable.map(batches)
        self._owner._add(self._kind, time.perf_counter() - start)
        return results

    def _rehearse(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        shapes = [tuple((name, array.shape) for name, array in batch.items()) for batch in batches]
        results: dict[Any, dict[str, Any]] = {}
        for shapes_of_one in dict.fromkeys(shapes):
            alike = [batch for batch, its in zip(batches, shapes, strict=True) if its == shapes_of_one]
            results[shapes_of_one] = self._executable.map(alike[: self._lanes])[0]
        return [results[its] for its in shapes]
