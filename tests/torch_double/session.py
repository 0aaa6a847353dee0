"""What the adapter asks of `onnxruntime`, computed by torch at the bound addresses and on the session's stream.

On a GPU it shows the adapter, the sampler, streams and delivery at work on real CUDA where the provider's wheel cannot
be installed; elsewhere the stand-in for CuPy is the device. It is as strict as ONNX Runtime: a CUDA graph belongs to
the thread that recorded it and replays at the addresses of its recording, whatever is bound; without
`disable_synchronize_execution_providers` the host waits after each run.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .operators import OPERATORS

__version__, cuda_version = "1.31.1", "13.0"
PROVIDER = "CUDAExecutionProvider"
ON_GPU = torch.cuda.is_available()

waits = 0
"""How often a run ended in waiting for its stream."""
recorded: list[tuple[int, str]] = []
"""Thread and number of each CUDA graph, in the order of recording."""

_TYPES = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.FLOAT16: "tensor(float16)"}


def get_available_providers() -> list[str]:
    return [PROVIDER, "CPUExecutionProvider"]


def set_default_logger_severity(severity: int) -> None: ...


def preload_dlls() -> None: ...


class SessionOptions:
    log_severity_level = 2
    enable_mem_pattern = True

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


class RunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


class Bound(NamedTuple):
    """An array that is bound by its address."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    address: int

    def tensor(self) -> Tensor:
        """The memory itself."""
        if ON_GPU:
            described = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}
            return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=described), device="cuda")
        room = (ctypes.c_uint8 * (math.prod(self.shape) * self.dtype.itemsize)).from_address(self.address)
        return torch.from_numpy(np.frombuffer(room, self.dtype).reshape(self.shape))


class IOBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, Bound] = {}
        self.outputs: dict[str, Bound] = {}

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: list[int], address: int) -> None:
        assert device == "cuda", f"{name} is bound on {device}"
        self.inputs[name] = Bound(name, np.dtype(dtype), tuple(shape), address)

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: list[int], address: int) -> None:
        assert device == "cuda", f"{name} is bound on {device}"
        self.outputs[name] = Bound(name, np.dtype(dtype), tuple(shape), address)


class InferenceSession:
    """A graph on the CUDA provider."""

    def __init__(
        self,
        model: str | bytes,
        options: SessionOptions | None = None,
        providers: list[Any] | None = None,
        enable_fallback: int = 1,
    ) -> None:
        (name, asked), *_ = providers or [(PROVIDER, {})]
        assert name == PROVIDER
        self._graphs = asked.get("enable_cuda_graph") == "1"
        self._stream = int(asked.get("user_compute_stream", 0))
        read = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        folder = "" if isinstance(model, bytes) else str(Path(model).parent)
        self._graph = read.graph
        self._weights = {t.name: _placed(numpy_helper.to_array(t, folder)) for t in read.graph.initializer}
        self._replays: dict[tuple[int, str], Callable[[], None]] = {}
        if not ON_GPU:
            sys.modules["cupy"].lazy = True

    def get_providers(self) -> list[str]:
        return get_available_providers()

    def get_inputs(self) -> list[Any]:
        return [_described(value) for value in self._graph.input]

    def get_outputs(self) -> list[Any]:
        return [_described(value) for value in self._graph.output]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=PROVIDER, get_nodes=lambda: list(self._graph.node))]

    def io_binding(self) -> IOBinding:
        return IOBinding()

    def run_with_iobinding(self, binding: IOBinding, options: RunOptions) -> None:
        number = options.entries.get("gpu_graph_id", "0")
        run = self._prepared(dict(binding.inputs), dict(binding.outputs))
        if self._graphs and number != "-1":
            key = (threading.get_ident(), number)
            if key not in self._replays:
                self._replays[key] = self._record(run)
                recorded.append(key)
            run = self._replays[key]
        self._queue(run)
        if options.entries.get("disable_synchronize_execution_providers") != "1":
            global waits
            waits += 1
            self._wait()

    def _prepared(self, inputs: dict[str, Bound], outputs: dict[str, Bound]) -> Callable[[], None]:
        """Computes the outputs at their addresses from what then lies at the inputs'."""
        assert {value.name for value in self._graph.input} == set(inputs), "not all inputs are bound"

        def run() -> None:
            with torch.inference_mode():
                results = self._compute({name: bound.tensor() for name, bound in inputs.items()})
                for name, bound in outputs.items():
                    assert tuple(results[name].shape) == bound.shape, (name, results[name].shape, bound.shape)
                    bound.tensor().copy_(results[name])

        return run

    def _compute(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        values = {**self._weights, **values}
        for node in self._graph.node:
            if node.op_type not in OPERATORS:
                raise NotImplementedError(f"{node.op_type} at {node.name}")
            attributes = {a.name: _attribute(a) for a in node.attribute}
            given = [values[name] if name else None for name in node.input]
            found = OPERATORS[node.op_type](attributes, *_together(given))
            values.update(zip(node.output, found if isinstance(found, tuple) else (found,), strict=True))
        return values

    # The stream: torch's on a GPU, else a queue of the stand-in for CuPy.

    def _queue(self, run: Callable[[], None]) -> None:
        if not ON_GPU:
            sys.modules["cupy"].queue(run, self._stream)
            return
        with torch.cuda.stream(torch.cuda.ExternalStream(self._stream)) if self._stream else nullcontext():
            run()

    def _record(self, run: Callable[[], None]) -> Callable[[], None]:
        if not ON_GPU:
            return run
        self._queue(run)  # torch's libraries initialise in the first run, which cannot be recorded
        self._wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.ExternalStream(self._stream), capture_error_mode="thread_local"):
            run()
        return graph.replay

    def _wait(self) -> None:
        if ON_GPU:
            torch.cuda.ExternalStream(self._stream).synchronize()
        else:
            sys.modules["cupy"].cuda.Stream(ptr=self._stream).synchronize()


def _placed(array: np.ndarray[Any, Any]) -> Tensor:
    """Whole numbers stay on the CPU."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.cuda() if ON_GPU and tensor.is_floating_point() else tensor


def _together(given: list[Tensor | None]) -> list[Tensor | None]:
    """Moves floats that were made on the CPU to where the others are."""
    device = next((x.device for x in given if x is not None and x.is_cuda), None)
    return [x.to(device) if device and x is not None and x.is_floating_point() else x for x in given]


def _described(value: Any) -> Any:
    kind = value.type.tensor_type
    shape = [d.dim_param or d.dim_value for d in kind.shape.dim]
    return SimpleNamespace(name=value.name, shape=shape, type=_TYPES[kind.elem_type])


def _attribute(attribute: Any) -> Any:
    found = onnx.helper.get_attribute_value(attribute)
    return torch.from_numpy(np.array(numpy_helper.to_array(found))) if attribute.name == "value" else found
