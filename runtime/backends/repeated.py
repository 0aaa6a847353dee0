"""A call made again and again with the same shapes: fixed addresses, and a CUDA graph of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Arrays = Mapping[str, Any]


class Repeated:
    """Runs from where it always reads to where it always writes, so that what was recorded of it stays valid.

    TensorRT for RTX records CUDA graphs itself, for the addresses it is given. TensorRT does not: the first run, in
    which it may still prepare, is queued as it is, the second is recorded, and from then on the recording is launched:
    one call of the driver instead of one for each kernel.

    Args:
        run: queues a run that reads from arrays and writes to others, new ones if none are given.
        arrays: like those of every call.
        graph: record it.

    Attributes:
        graphs: how many recordings were made; more than one where the scratch moved.
    """

    def __init__(self, xp: Any, run: Callable[..., dict[str, Any]], arrays: Arrays, *, graph: bool) -> None:
        self._xp, self._run, self._wanted = xp, run, graph
        self._inputs = {name: xp.empty(array.shape, array.dtype) for name, array in arrays.items()}
        self._results: dict[str, Any] | None = None
        self._graph: Any = None
        self._scratch: Any = None
        self.graphs = 0

    def __call__(self, arrays: Arrays, scratch: Any) -> dict[str, Any]:
        """Runs once; results are copies, as the next run writes over them.

        Args:
            scratch: where activations lie now; a recording is good for one place.
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
        """Whether a run could be recorded; if not, it is never tried again."""
        stream, graph = self._xp.cuda.get_current_stream(), None
        with suppress(Exception):  # whatever may not be recorded, or a library that is too old for it
            stream.begin_capture()
            try:
                self._run(self._inputs, self._results)
            finally:
                graph = stream.end_capture()
        self._graph, self._scratch, self._wanted = graph, scratch, graph is not None
        self.graphs += graph is not None
        return graph is not None
