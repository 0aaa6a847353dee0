"""A half-precision graph's float32 twin: the same stored weights and operators, every tensor computed in float32.

The twin has neither the overflows nor the rounding of half precision. Graphs, backends and engines in half precision
are compared with it. It is built in memory and reads the graph's own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal.runtime.backends import Backend
from amodal.runtime.backends.denormals import denormals_as_zero
from amodal.runtime.backends.onnxruntime.cpu import Session
from amodal.runtime.backends.onnxruntime.graph import session_options
from amodal.runtime.bundle.manifest import ComponentEntry
from amodal.runtime.errors import BackendError, BundleError, MissingDependencyError, first_line

_FLOAT, _HALF = 1, 10  # onnx.TensorProto.DataType
_DTYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "softmax_precision", "stash_type"})


class HalfTensor(NamedTuple):
    """A FLOAT16 tensor that a graph computes, and the node that computes it."""

    name: str
    node: str
    operator: str


def read_graph(file: Path) -> Any:
    """Reads a graph as `onnx.ModelProto`, without its weights.

    Raises:
        MissingDependencyError: onnx is not installed.
        BundleError: the file is not a graph.
    """
    onnx = _onnx()
    try:
        return onnx.load(str(file), load_external_data=False)
    except Exception as error:
        raise BundleError(f"{file} is no ONNX graph ({error}); export the bundle again.") from error


def half_tensors(model: Any) -> list[HalfTensor]:
    """Lists the FLOAT16 tensors that the nodes of a graph compute, in order; weights are not among them.

    Dtypes are propagated through the operators' schemas: onnx 1.23's shape inference leaves the output of
    GroupNormalization, and all that follows it, without a type.

    Raises:
        BundleError: onnx does not know an operator.
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
    """Returns the float32 twin of a graph; every tensor keeps its name.

    Weights keep their stored dtype, each followed by a Cast; casts to FLOAT16 become casts to FLOAT.
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
    del graph.value_info[:]  # its dtypes no longer hold
    casts = [onnx.helper.make_node("Cast", [old], [new], name=new, to=_FLOAT) for old, new in widened.items()]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return twin


class GraphSession(Session):
    """A serialised graph in ONNX Runtime on the CPU; see `amodal.runtime.backends.Executable`.

    Args:
        folder: holds the graph's external data. ONNX Runtime 1.31 refuses links out of a graph's folder, so a graph
            that is not on disk needs this setting.
        optimise: see `session_options`.
    """

    def __init__(self, content: bytes, folder: Path, name: str, threads: int = 0, *, optimise: bool = True) -> None:
        ort, options = session_options(threads, optimise=optimise)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as the backend does
        try:
            with denormals_as_zero():
                session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"onnxruntime cannot load the graph of {name}: {first_line(error)}") from error
        super().__init__(session, name)


class TwinBackend(Backend):
    """Runs the float32 twins of a bundle's graphs on the CPU; see `amodal.runtime.backends.Backend`.

    Graphs in float32 are their own twins, and need no onnx.

    Args:
        on_gpu: cut runs as for a GPU, so that engines take the recorded calls.
    """

    def __init__(self, threads: int = 0, *, on_gpu: bool = False) -> None:
        self.name, self.on_gpu, self._threads = "float32 twin", on_gpu, threads

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> GraphSession:
        """See `Backend.load`."""
        graph = files[0]
        content = graph.read_bytes() if entry.precision == "fp32" else upcast(read_graph(graph)).SerializeToString()
        return GraphSession(content, graph.parent, graph.stem, self._threads)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {"name": self.name}


def _paired(names: Sequence[str], formals: Sequence[Any]) -> list[tuple[str, Any]]:
    """Pairs a node's tensors with their schema entries; the last entry may be variadic."""
    return [(name, formals[min(i, len(formals) - 1)]) for i, name in enumerate(names) if name]


def _named_dtype(node: Any) -> int | None:
    """Returns the dtype that a node states itself (Cast, Constant)."""
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
