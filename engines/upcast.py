"""A half-precision graph's float32 twin: the same stored weights and operators, every tensor computed in float32.

What overflows in half precision is a number in the twin, and what half precision rounds is exact: the twin is what a
graph, a backend or an engine in half precision is held against. It is made in memory and reads the graph's own weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal.runtime.backends.denormals import denormals_as_zero
from amodal.runtime.backends.host import HostBackend
from amodal.runtime.bundle.manifest import ComponentEntry
from amodal.runtime.errors import BackendError, BundleError, MissingDependencyError, first_line

_FLOAT, _HALF = 1, 10  # onnx.TensorProto.DataType
_DTYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "softmax_precision", "stash_type"})


class HalfTensor(NamedTuple):
    """A FLOAT16 tensor that a graph computes, and the node that does."""

    name: str
    node: str
    operator: str


def read_graph(file: Path) -> Any:
    """A graph as `onnx.ModelProto`, its weights left on disk.

    Raises:
        MissingDependencyError: onnx is not installed.
        BundleError: the file is no graph.
    """
    onnx = _onnx()
    try:
        return onnx.load(str(file), load_external_data=False)
    except Exception as error:
        raise BundleError(f"{file} is no ONNX graph ({error}); export the bundle again.") from error


def half_tensors(model: Any) -> list[HalfTensor]:
    """The FLOAT16 tensors that the nodes of a graph compute, in their order; weights are none of them.

    Dtypes are followed from operator to operator by their schemas: onnx 1.23's shape inference leaves the output of
    GroupNormalization without a type, and whatever comes after it.

    Raises:
        BundleError: an operator that onnx does not know.
    """
    onnx = _onnx()
    graph, versions = model.graph, {opset.domain: opset.version for opset in model.opset_import}
    half = {value.name for value in graph.input if value.type.tensor_type.elem_type == _HALF}
    half |= {tensor.name for tensor in graph.initializer if tensor.data_type == _HALF}
    found = []
    for node in graph.node:
        try:
            schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError as error:
            raise BundleError(
                f"graph {graph.name}: onnx {onnx.__version__} does not know the operator {node.op_type} of node "
                f"{node.name}; update onnx."
            ) from error
        named = _named_dtype(node) == _HALF
        bound: dict[str, bool] = {}
        for name, formal in _paired(node.input, schema.inputs):
            bound.setdefault(formal.type_str, name in half)
        for name, formal in _paired(node.output, schema.outputs):
            if bound.get(formal.type_str, named):
                half.add(name)
                found.append(HalfTensor(name, node.name, node.op_type))
    return found


def upcast(model: Any) -> Any:
    """The float32 twin of a graph; every tensor keeps its name.

    Weights stay as they are in the file, each with a Cast behind it; casts to FLOAT16 become casts to FLOAT.
    """
    onnx = _onnx()
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    graph = twin.graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == _HALF}
    widened: dict[str, str] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _DTYPE_ATTRIBUTES and attribute.i == _HALF:
                attribute.i = _FLOAT
            elif attribute.t.data_type == _HALF:
                exact = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(exact, attribute.t.name))
        if node.op_type != "Cast":
            for index, name in enumerate(node.input):
                if name in weights:
                    node.input[index] = widened.setdefault(name, f"{name}/float32")
    for value in chain(graph.input, graph.output):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _FLOAT
    del graph.value_info[:]  # the dtypes there are no longer so
    casts = [onnx.helper.make_node("Cast", [old], [new], name=new, to=_FLOAT) for old, new in widened.items()]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return twin


class GraphSession:
    """A graph held in memory, in ONNX Runtime on the CPU; see `amodal.runtime.backends.Executable`.

    Args:
        content: the graph, serialised.
        folder: where its external data lies. ONNX Runtime 1.31 refuses links that lead out of a graph's folder, so that
            a graph that is not written anywhere is told where to look.
        optimise: what ONNX Runtime does by default; without, weights stored in half precision are widened one at a
            time instead of all at load.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: the graph cannot be loaded.
    """

    def __init__(self, content: bytes, folder: Path, name: str, threads: int = 0, *, optimise: bool = True) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError('comparing graphs needs onnxruntime; `pip install "amodal[cpu]"`.') from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = optimise
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as the backend does
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._name = name
        try:
            with denormals_as_zero():
                self._session: Any = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"onnxruntime cannot load the graph of {name}: {first_line(error)}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        if self._session is None:
            raise BackendError(f"the graph of {self._name} was closed.")
        try:
            with denormals_as_zero():
                values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise BackendError(f"onnxruntime cannot run the graph of {self._name}: {first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable`."""
        return [self(inputs) for inputs in batches]

    def close(self) -> None:
        """See `Executable`."""
        self._session = None


class TwinBackend(HostBackend):
    """Runs the float32 twins of a bundle's graphs on the CPU; see `amodal.runtime.backends.Backend`.

    Graphs in float32 are their own twins, and need no onnx.
    """

    def __init__(self, threads: int = 0) -> None:
        super().__init__()
        self.name, self.lanes, self._threads = "float32 twin", 1, threads

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> GraphSession:
        """See `Backend.load`."""
        graph = files[0]
        content = graph.read_bytes() if entry.precision == "fp32" else upcast(read_graph(graph)).SerializeToString()
        return GraphSession(content, graph.parent, graph.stem, self._threads)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {"name": self.name}


def _paired(names: Sequence[str], formals: Sequence[Any]) -> list[tuple[str, Any]]:
    """A node's tensors, and what its operator's schema says of each; the last of a schema may stand for many."""
    return [(name, formals[min(i, len(formals) - 1)]) for i, name in enumerate(names) if name]


def _named_dtype(node: Any) -> int | None:
    """The dtype that a node names itself (Cast, Constant)."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype"):
            return int(attribute.i)
        if attribute.t.data_type:
            return int(attribute.t.data_type)
    return None


def _onnx() -> Any:
    try:
        import onnx
        import onnx.defs
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "verifying graphs in half precision needs onnx; `pip install onnx`, or one of the extras rtx, tensorrt and "
            "export."
        ) from error
    return onnx
