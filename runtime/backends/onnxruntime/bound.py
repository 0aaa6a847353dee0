"""An ONNX Runtime session bound to arrays by pointer, on the caller's stream.

Written for the CUDA provider. A `Place` names device and provider, so that tests run the same code on the CPU.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from ...errors import BackendError, MemoryBudgetError, first_line
from ..gpu import Gpu, aligned, out_of_memory

ALLOCATION_LOCK = threading.RLock()
"""Held while allocating, releasing or capturing: CUDA fails if one thread does so while another captures."""

_MOST_GRAPHS = 4  # each keeps its activations; the U-Net needs two: for one CFG row, and for both
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
_NO_GRAPH = "-1"
_FAILED_NODE = r"Non-zero status code returned while running \w+ node\. Name:'([^']*)' Status Message: "


class Place(NamedTuple):
    """Where sessions run.

    Attributes:
        provider: ONNX Runtime's name.
        device, number: of the bound memory, `cuda` or `cpu`.
        arena: its name in the run option that shrinks arenas, `gpu:0`.
    """

    provider: str
    device: str
    number: int
    arena: str


class BoundSettings(NamedTuple):
    """How a component runs.

    Attributes:
        kind: of the component, for messages.
        graph: replay each shape as a CUDA graph, with inputs and results copied to and from its fixed arrays; otherwise
            they are bound directly.
        keeps_memory: keep activations between calls, for a component that is called again and again.
        kept: called with the bytes of device memory that a recorded CUDA graph keeps.
        closed: called once the memory is freed.
    """

    kind: str
    place: Place
    gpu: Gpu
    graph: bool = False
    keeps_memory: bool = False
    kept: Callable[[int], Any] = lambda size: None
    closed: Callable[[], Any] = lambda: None


class _Captured(NamedTuple):
    """A CUDA graph, and the arrays whose addresses it was recorded with."""

    binding: Any
    options: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]


Shapes = tuple[tuple[int, ...], ...]


class BoundSession:
    """A component ready to run; see `Executable`.

    A CUDA graph of ONNX Runtime belongs to the thread that recorded it: another one would record it again, while
    programs allocate. Those sessions therefore run in a thread of their own.
    """

    def __init__(self, ort: Any, session: Any, xp: Any, settings: BoundSettings) -> None:
        self._ort, self._session, self._xp, self._settings = ort, session, xp, settings
        self._kind, self._graph = settings.kind, settings.graph
        self._thread = ThreadPoolExecutor(1, f"amodal-{settings.kind}") if settings.graph else None
        self._inputs = {i.name: (i.shape, _TYPES[i.type]) for i in session.get_inputs()}
        self._outputs = {o.name: (o.shape, _TYPES[o.type]) for o in session.get_outputs()}
        self._captured: dict[Shapes, _Captured] = {}
        self._binding: Any = session.io_binding()
        self._running: list[Any] = []  # what the last run reads and writes

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        return self._run(inputs, last=False)

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`; activations that need not be kept are freed after the last call."""
        return [self._run(inputs, last=i == len(batches) - 1) for i, inputs in enumerate(batches)]

    def _run(self, inputs: Mapping[str, Any], last: bool) -> dict[str, Any]:
        if self._session is None:
            raise BackendError(f"component {self._kind} was closed; load the bundle again.")
        arrays = {name: aligned(self._xp, inputs[name], kind) for name, (_, kind) in self._inputs.items()}
        shapes = tuple(array.shape for array in arrays.values())
        if self._graph and (shapes in self._captured or len(self._captured) < _MOST_GRAPHS):
            return self._replay(arrays, shapes)
        outputs = self._new_outputs(arrays)
        self._bind(self._binding, arrays, outputs)
        with ALLOCATION_LOCK:
            self._execute(self._binding, self._options(_NO_GRAPH if self._graph else None, last))
        self._running = [arrays, outputs]
        return outputs

    def _replay(self, arrays: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        captured = self._captured.get(shapes)
        if captured is None:
            fixed = {name: self._xp.empty(array.shape, array.dtype) for name, array in arrays.items()}
            outputs = self._new_outputs(fixed)
            binding = self._session.io_binding()
            self._bind(binding, fixed, outputs)
            captured = _Captured(binding, self._options(str(len(self._captured) + 1), False), fixed, outputs)
        for name, array in arrays.items():
            self._xp.copyto(captured.inputs[name], array)
        if shapes in self._captured:
            self._execute(captured.binding, captured.options)
        else:
            with ALLOCATION_LOCK:
                before = self._free_bytes()
                self._execute(captured.binding, captured.options)
                self._settings.kept(before - self._free_bytes())
            self._captured[shapes] = captured  # only now, so that a failed capture is tried again
        return {name: array.copy() for name, array in captured.outputs.items()}

    def _free_bytes(self) -> int:
        return int(self._xp.cuda.runtime.memGetInfo()[0])

    def _options(self, graph: str | None, last: bool) -> Any:
        options = self._ort.RunOptions()
        # By default ONNX Runtime waits for the stream after each run.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if graph is not None:
            options.add_run_config_entry("gpu_graph_id", graph)
        if last and not self._settings.keeps_memory:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", self._settings.place.arena)
        return options

    def _new_outputs(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        free: dict[str, int] = {}
        for name, array in arrays.items():
            expected = self._inputs[name][0]
            sizes = list(zip(expected, array.shape, strict=False))
            if len(expected) != array.ndim or any(d != n for d, n in sizes if isinstance(d, int)):
                raise BackendError(
                    f"the graph of {self._kind} takes {name} as {list(expected)}, not {list(array.shape)}; export the "
                    "bundle again for other shapes."
                )
            free.update({d: n for d, n in sizes if not isinstance(d, int)})
        return {
            name: self._xp.empty(tuple(d if isinstance(d, int) else free[d] for d in shape), kind)
            for name, (shape, kind) in self._outputs.items()
        }

    def _bind(self, binding: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        where = (self._settings.place.device, self._settings.place.number)
        for arrays, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, array in arrays.items():
                bind(name, *where, array.dtype, list(array.shape), int(array.data.ptr))

    def _execute(self, binding: Any, options: Any) -> None:
        try:
            if self._thread is None:
                self._session.run_with_iobinding(binding, options)
            else:
                self._thread.submit(self._session.run_with_iobinding, binding, options).result()
        except Exception as error:
            kind, reason = f"component {self._kind}", reason_of(error)
            if is_out_of_memory(error):
                raise MemoryBudgetError(out_of_memory(self._settings.gpu, f"{kind}: {reason}")) from error
            raise BackendError(f"onnxruntime failed in {kind} on the {self._settings.gpu.name}: {reason}") from error

    def close(self) -> None:
        """See `Executable.close`; waits for running work."""
        if self._session is None:
            return
        with suppress(Exception):  # must not hide a device failure that is already being raised
            self._xp.cuda.get_current_stream().synchronize()
        if self._thread is not None:
            self._thread.shutdown()
        with ALLOCATION_LOCK:
            self._captured, self._running, self._binding, self._session = {}, [], None, None
        self._settings.closed()


def reason_of(error: BaseException) -> str:
    """Extracts ONNX Runtime's message, without the source locations in it and the host name after it."""
    text = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))
    text = re.sub(r"/\S+\.(?:h|cc|cu):\d+ [^()]*\([^()]*\)(?: const)?(?: \[with [^]]*\])? ", "", text)
    text = re.sub(r"^\S+\.(?:h|cc):\d+ \S+ ", "", text).partition(" ; GPU=")[0].strip().rstrip(".")
    return re.sub(rf"(?:Error in execution: )?{_FAILED_NODE}", r"node \1: ", text)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells from the message whether memory ran out: ONNX Runtime has no exception type for it."""
    message = str(error).lower()
    words = ("out of memory", "failed to allocate memory", "smaller than requested bytes", "cudnn_status_alloc_failed")
    return any(word in message for word in words)
