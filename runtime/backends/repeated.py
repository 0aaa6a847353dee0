"""A call repeated with the same shapes: fixed addresses, recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Arrays = Mapping[str, Any]


class Repeated:
    """Runs on fixed input and output arrays, so that a recorded CUDA graph stays valid.

    TensorRT for RTX records CUDA graphs itself, for fixed addresses. TensorRT does not: the first run, in which it may
    still initialise, is queued normally, the second is recorded, and later ones launch the recording: one driver call
    instead of one per kernel.

    Args:
        run: queues a run from input arrays to output arrays; allocates the outputs if none are given.
        arrays: with the shapes and dtypes of every call.
        graph: record a CUDA graph.

    Attributes:
        graphs: number of recordings; more than one if the scratch moved.
    """

    def __init__(self, xp: Any, run: Callable[..., dict[str, Any]], arrays: Arrays, *, graph: bool) -> None:
        self._xp, self._run, self._wanted = xp, run, graph
        self._inputs = {name: xp.empty(array.shape, array.dtype) for name, array in arrays.items()}
        self._results: dict[str, Any] | None = None
        self._graph: Any = None
        self._scratch: Any = None
        self.graphs = 0

    def __call__(self, arrays: Arrays, scratch: Any) -> dict[str, Any]:
        """Runs once and returns copies of the results, which the next run overwrites.

        Args:
            scratch: address of the activations; a recording is valid for one address.
        """
        for name, array in arrays.items():
            self._xp.copyto(self._inputs[name], array)
        if self._graph is not None and self._scratch != scratch:
            self._graph, self._results = None, None
        if self._results is None:
            self._results = self._run(self._inputs)
        elif self._wanted and (self._graph is not None or self._record(scratch)):
            self._graph.launch(self._xp.cuda.get_current_stream())
        else:
            self._run(self._inputs, self._results)
        return {name: array.copy() for name, array in self._results.items()}

    def _record(self, scratch: Any) -> bool:
        """Records a run and returns whether that worked; if not, it is not tried again."""
        stream, graph = self._xp.cuda.get_current_stream(), None
        with suppress(Exception):  # work that cannot be recorded, or a library too old for it
            stream.begin_capture()
            try:
                self._run(self._inputs, self._results)
            finally:
                recorded = stream.end_capture()
            graph = recorded  # not reached after a failure, which leaves a recording of a part
        self._graph, self._scratch, self._wanted = graph, scratch, graph is not None
        self.graphs += graph is not None
        return graph is not None
