"""From a torch module to an ONNX graph whose weights are bound afterwards.

A module is traced with fake tensors, so no weight exists while the graph is made: a 1.5 billion parameter U-Net
traces in a few hundred MB, and two stages of one architecture share one trace. Weights are then streamed, tensor by
tensor, into one external-data file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common as ir_passes
from onnxscript import optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from amodal.runtime.errors import CheckpointError, ExportError

from .weights import Weights

ALIGNMENT = 4096  # bytes; lets loaders map tensors straight from the file
OPSET = 23


@dataclass
class Binding:
    """Which weight an initializer of a graph holds, and how."""

    weight: str
    transposed: bool


@dataclass
class Trace:
    """A graph without weights.

    Attributes:
        model: the ONNX graph; the weights are inputs of it, after the real ones.
        bindings: name of a weight input -> what it is to hold.
    """

    model: ir.Model
    bindings: dict[str, Binding]


def trace(
    build: Callable[[], nn.Module],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: tuple[str, ...],
    *,
    dynamic: Mapping[str, Mapping[int, Any]] | None = None,
    half: bool = False,
    opset: int = OPSET,
) -> Trace:
    """Traces a module into an ONNX graph without weights.

    Args:
        build: makes the module; called with fake tensors as default, so nothing is allocated.
        inputs: float32 input shapes by the graph's input names, in the order of `forward`.
        outputs: output names, in order.
        dynamic: per input, axis -> `torch.export.Dim`, for axes that stay free.
        half: weights are float16.

    Raises:
        ExportError: torch could not export the module.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _quiet():
        module = build().eval()
        if half:
            module = module.half()
        example = tuple(torch.zeros(shape) for shape in inputs.values())
        try:
            program = torch.onnx.export(
                module,
                example,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                dynamic_shapes=tuple(dict((dynamic or {}).get(name, {})) for name in inputs)
                if dynamic
                else None,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # noqa: BLE001 (torch raises many kinds; each means the same to the caller)
            raise ExportError(
                f"torch could not export {type(module).__name__}: {error}. Please report it, with the output "
                "of `amodal doctor`."
            ) from error
    assert program is not None
    model = program.model
    weights = _weights_to_inputs(model)
    _optimise(model)
    return Trace(model, _bindings(model, weights))


class _quiet:
    """Silences torch's export chatter (deprecations of its own making) without touching other loggers."""

    def __enter__(self) -> None:
        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.simplefilter("ignore")
        self._loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *exc: object) -> None:
        self._catch.__exit__(None, None, None)
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)


def _weights_to_inputs(model: ir.Model) -> list[ir.Value]:
    # As graph inputs the weights are opaque: no pass can fold a fake value, or fold a small one and forget its name.
    graph = model.graph
    weights = []
    for name, value in list(graph.initializers.items()):
        raw = getattr(value.const_value, "raw", None)
        if isinstance(raw, Tensor):
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
            weights.append(value)
    return weights


def _optimise(model: ir.Model) -> None:
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    optimizer.optimize_ir(model, num_iterations=2, onnx_shape_inference=False)
    ir_passes.RemoveUnusedNodesPass()(model)
    ir_passes.RemoveUnusedFunctionsPass()(model)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for function in list(model.functions):
        raise ExportError(f"the graph still calls the function {function} after inlining; please report it.")


def _bindings(model: ir.Model, weights: list[ir.Value]) -> dict[str, Binding]:
    """Drops unused weights, and stores a linear layer's weight the way MatMul reads it, without a Transpose."""
    graph = model.graph
    names = {value.name for value in weights}
    kept = [value for value in graph.inputs if value.name not in names]
    bindings: dict[str, Binding] = {}
    for value in weights:
        name = value.name
        assert name is not None
        uses = list(value.uses())
        if not uses:
            continue
        flips = [node for node, _ in uses if _is_transpose(node)]
        bindings[name] = Binding(name, transposed=len(flips) == len(uses))
        if bindings[name].transposed:
            fresh = ir.Value(name=name, shape=ir.Shape(list(value.shape or ())[::-1]), type=value.type)
            for node in flips:
                node.outputs[0].replace_all_uses_with(fresh)
            graph.remove(flips, safe=True)
            value = fresh
        kept.append(value)
    graph.inputs.clear()
    graph.inputs.extend(kept)
    return bindings


def _is_transpose(node: ir.Node) -> bool:
    if node.op_type != "Transpose":
        return False
    perm = node.attributes.get("perm")
    return perm is not None and list(perm.as_ints()) == [1, 0]


_NUMPY: dict[ir.DataType, type[np.generic]] = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
}


def bind(
    traced: Trace,
    weights: Weights,
    file: Path,
    *,
    store_half: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Writes a traced graph with its weights, the latter streamed into `<file>.data` beside it.

    Args:
        weights: must hold every tensor the bindings name.
        file: the `.onnx` file to write.
        store_half: keeps float32 arithmetic but stores float32 weights in half precision, with a Cast after each.
            The reference runs its VAE encoder that way (diffusers' `force_upcast`).
        progress: called with the number of bytes written since the last call.

    Returns:
        The number of parameters bound.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or does not fit into float16.
    """
    model = ir.from_proto(ir.to_proto(traced.model))  # a trace may be bound more than once
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    for name in traced.bindings:
        graph.inputs.remove(inputs[name])
    parameters = offset = 0
    location = file.name + ".data"
    with open(file.with_name(location), "wb") as data:
        for name, binding in traced.bindings.items():
            value = inputs[name]
            target = np.float16 if store_half else _NUMPY[value.dtype or ir.DataType.FLOAT]
            array = _array(weights, binding, value, target)
            padding = -offset % ALIGNMENT
            data.write(b"\0" * padding)
            data.write(memoryview(array.reshape(-1).view(np.uint8)))
            offset += padding
            stored = _stored_as(graph, value, target)
            stored.const_value = ir.ExternalTensor(
                location,
                offset,
                array.nbytes,
                ir.DataType.FLOAT16 if target is np.float16 else ir.DataType.FLOAT,
                shape=ir.Shape(array.shape),
                name=stored.name or name,
                base_dir=file.parent,
            )
            graph.register_initializer(stored)
            offset += array.nbytes
            parameters += array.size
            progress(array.nbytes)
    ir.save(model, file)
    return parameters


def _array(weights: Weights, binding: Binding, value: ir.Value, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    if binding.weight not in weights:
        raise CheckpointError(f"{weights.source} lacks the tensor {binding.weight}; the download is incomplete.")
    tensor = weights[binding.weight]
    if binding.transposed:
        tensor = tensor.t()
    expected = [int(n) for n in value.shape or ()]  # type: ignore[arg-type]
    if list(tensor.shape) != expected:
        raise CheckpointError(
            f"{weights.source}: tensor {binding.weight} has shape {list(tensor.shape)}, the graph needs {expected}."
        )
    array = np.ascontiguousarray(tensor.detach().numpy())
    with np.errstate(over="ignore"):
        stored = array.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        peak = float(np.abs(array).max())
        raise CheckpointError(
            f"{weights.source}: tensor {binding.weight} holds values up to {peak:.3g}, which {np.dtype(dtype).name} "
            "cannot; export with --precision fp32 or check the checkpoint."
        )
    return stored


def _stored_as(graph: ir.Graph, value: ir.Value, dtype: type[np.generic]) -> ir.Value:
    if dtype is not np.float16 or value.dtype == ir.DataType.FLOAT16:
        return value
    stored = ir.Value(name=f"{value.name}.half", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16))
    name = value.name
    cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})
    value.replace_all_uses_with(cast.outputs[0])
    value.name = None
    cast.outputs[0].name = name
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    cast.outputs[0].shape = stored.shape
    graph.insert_before(graph[0], cast)
    return stored
