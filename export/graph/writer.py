"""Writes ONNX graphs directly, operator by operator.

The networks here are few and known, so their graphs are written rather than traced from torch: a 1.5 billion
parameter U-Net takes seconds instead of minutes and a few MB instead of GB, every shape is static from the start, the
operators are exactly those chosen, and node names say which layer they belong to. Weights are pending until
`Graph.save` streams them, tensor by tensor, into one external-data file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from torch import Tensor

from amodal.runtime.bundle.manifest import Precision, TensorEntry
from amodal.runtime.errors import CheckpointError

from .variants import VARIANTS, Variant
from .weights import Weights

ALIGNMENT = 4096  # bytes; so that loaders can map tensors from the file
_SMALL, _SMALL_ALIGNMENT = 1 << 16, 64  # bytes; in a small network, padding to pages would be a seventh of the file
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_NUMPY: dict[ir.DataType, type[np.generic]] = {FLOAT: np.float32, HALF: np.float16}

Shape = Sequence[int | str]


class Dtypes(NamedTuple):
    """Dtype of a graph's activations and arithmetic, and of its weights in the file."""

    compute: ir.DataType
    stored: ir.DataType

    @classmethod
    def of(cls, precision: Precision, stored: Precision | None = None) -> Dtypes:
        """By their names; weights are stored in the compute dtype by default."""
        names = {"fp32": FLOAT, "fp16": HALF}
        return cls(names[precision], names[stored or precision])


class PendingWeight(NamedTuple):
    """A weight that is not written yet.

    Attributes:
        stored: dtype in the file; a Cast may follow `value`.
        load: returns the tensor in float32, in the layout that the graph reads.
    """

    value: ir.Value
    shape: tuple[int, ...]
    stored: ir.DataType
    load: Callable[[], Tensor]


@dataclass
class Graph:
    """An ONNX graph being written.

    Args:
        name: the component.
        weights: the checkpoint's tensors, by their names in the torch module.
        compute: dtype of activations and arithmetic.
        stored: dtype of weights in the file. FLOAT16 under FLOAT arithmetic puts a Cast after each, as the reference
            runs its VAE encoder (diffusers' `force_upcast`).
        variant: how layers are written where several forms compute the same.
        repeated: whether it is run again and again, so that weights which save time may take memory.

    Attributes:
        inputs, outputs: names, dtypes and shapes of the tensors declared so far.
    """

    name: str
    weights: Weights
    compute: ir.DataType = FLOAT
    stored: ir.DataType = FLOAT
    variant: Variant = VARIANTS["cpu"]
    repeated: bool = False
    inputs: list[TensorEntry] = field(default_factory=list)
    outputs: list[TensorEntry] = field(default_factory=list)
    _nodes: list[ir.Node] = field(default_factory=list)
    _inputs: list[ir.Value] = field(default_factory=list)
    _outputs: list[ir.Value] = field(default_factory=list)
    _constants: dict[Any, ir.Value] = field(default_factory=dict)
    _pending: dict[str, PendingWeight] = field(default_factory=dict)
    _ones: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _scope: list[str] = field(default_factory=list)

    # Writing

    def input(self, name: str, shape: Shape, dtype: ir.DataType | None = None) -> ir.Value:
        """Declares a float32 input, and returns it in `dtype`, else the compute dtype. Axes given as str are free."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT))
        self._inputs.append(value)
        self.inputs.append(TensorEntry(name=name, dtype="float32", shape=tuple(shape)))
        return self.cast(value, dtype or self.compute)

    def output(self, name: str, value: ir.Value, shape: Shape) -> None:
        """Declares a float32 output."""
        out = self.op("Cast", value, to=FLOAT) if self.compute != FLOAT else self.op("Identity", value)
        out.name, out.shape, out.type = name, ir.Shape(shape), ir.TensorType(FLOAT)
        self._outputs.append(out)
        self.outputs.append(TensorEntry(name=name, dtype="float32", shape=tuple(shape)))

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Appends a node with one output."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: ir.Value | None, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """Appends a node with several outputs."""
        node = ir.node(kind, list(inputs), attributes=attributes, num_outputs=outputs)
        index = len(self._nodes)
        node.name = f"{'.'.join(self._scope) or self.name}/{kind}_{index}"
        for i, out in enumerate(node.outputs):
            out.name = f"v{index}" if i == 0 else f"v{index}_{i}"
            out.type = ir.TensorType(attributes["to"]) if kind == "Cast" else None
        self._nodes.append(node)
        return node.outputs

    def constant(self, array: Any, dtype: type[np.generic] = np.int64) -> ir.Value:
        """Returns a small constant; equal ones are stored once."""
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name, kind = f"c{len(self._constants)}", ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value = ir.Value(name=name, const_value=ir.tensor(array), shape=ir.Shape(array.shape), type=kind)
            self._constants[key] = value
        return self._constants[key]

    def scalar(self, number: float) -> ir.Value:
        """Returns a scalar constant of the compute dtype."""
        return self.constant(number, _NUMPY[self.compute])

    def ones(self, shape: ir.Value) -> ir.Value:
        """Returns ones of the compute dtype, of a shape that is a constant or read; the same for an equal constant.

        They are an operator's, which ONNX Runtime computes when it loads, because the file would hold megabytes.
        """
        made = self._ones.get(shape)
        if made is None:
            one = ir.tensor(np.ones(1, _NUMPY[self.compute]))
            made = self._ones[shape] = self.op("ConstantOfShape", shape, value=one)
        return made

    def weight(self, name: str) -> ir.Value:
        """Returns a tensor of the checkpoint, unchanged, in the compute dtype."""
        return self.derived(name, self.weights.shape(name), lambda: self.weights.load(name))

    def derived(self, name: str, shape: Sequence[int], load: Callable[[], Tensor]) -> ir.Value:
        """Returns a tensor computed from the checkpoint's, in the compute dtype; stored once per name."""
        pending = self._pending.get(name)
        if pending is None:
            stored = HALF if self.stored == HALF and len(shape) > 1 else self.compute
            value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(stored))
            pending = self._pending[name] = PendingWeight(value, tuple(shape), stored, load)
        return self.cast(pending.value, self.compute)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Casts a value unless it is known to have that dtype, as inputs and weights are."""
        return value if value.dtype == dtype else self.op("Cast", value, to=dtype)

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Makes weights and scalars that are asked for inside float32, stored as such too, in a graph of any dtype.

        Values from outside have to be cast first, and results back after it.
        """
        before, (self.compute, self.stored) = (self.compute, self.stored), (FLOAT, FLOAT)
        yield
        self.compute, self.stored = before

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names the nodes that are added inside after a layer."""
        self._scope.append(name)
        yield
        self._scope.pop()

    # Saving

    @property
    def parameters(self) -> int:
        """Number of parameters, without small constants."""
        return sum(math.prod(weight.shape) for weight in self._pending.values())

    def save(
        self,
        file: Path,
        progress: Callable[[int, int], object] = lambda done, total: None,
        *,
        shared: Mapping[str, ir.ExternalTensor] | None = None,
    ) -> dict[str, ir.ExternalTensor]:
        """Writes the graph to `file`, its weights to `<file>.data` beside it.

        Args:
            progress: called with the bytes of weights written so far, and in all.
            shared: weights that are already in the same folder; those of equal name, shape and dtype are referred to
                instead of being written again.

        Returns:
            Where each weight is stored, for another graph to share.

        Raises:
            CheckpointError: a tensor has another shape than declared, or does not fit into its stored dtype.
        """
        places: dict[str, ir.ExternalTensor] = {}
        total = int(sum(math.prod(weight.shape) * weight.stored.itemsize for weight in self._pending.values()))
        progress(0, total)
        data = file.with_name(file.name + ".data")
        with open(data, "wb") as out:
            for name, weight in self._pending.items():
                place = (shared or {}).get(name)
                shape = ir.Shape(weight.shape)
                if place is None or (place.shape, place.dtype) != (shape, weight.stored):
                    array = self._array(name, weight)
                    alignment = ALIGNMENT if array.nbytes >= _SMALL else _SMALL_ALIGNMENT
                    out.write(b"\0" * (-out.tell() % alignment))
                    position = (out.tell(), array.nbytes, weight.stored)
                    place = ir.ExternalTensor(data.name, *position, shape=shape, name=name, base_dir=file.parent)
                    array.tofile(out)
                    progress(out.tell(), total)
                places[name] = weight.value.const_value = place
        if not data.stat().st_size:
            data.unlink()
        ir.save(self.model(), file)
        return places

    def model(self) -> ir.Model:
        """Returns the graph as a model, once; weights that were not saved are without values."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=[*self._constants.values(), *(weight.value for weight in self._pending.values())],
            opset_imports={"": self.variant.opset},
            name=self.name,
        )
        # IR version 11 goes with opset 23; ONNX Runtime 1.23 (Python 3.10) reads no newer one.
        return ir.Model(graph, ir_version=11, producer_name="amodal")

    def _array(self, name: str, weight: PendingWeight) -> np.ndarray[Any, Any]:
        tensor, source = weight.load(), self.weights.source
        if tuple(tensor.shape) != weight.shape:
            raise CheckpointError(
                f"{source}: tensor {name} has shape {list(tensor.shape)}, the config asks for {list(weight.shape)}."
            )
        array: np.ndarray[Any, Any] = tensor.detach().contiguous().numpy()
        with np.errstate(over="ignore"):
            stored = array.astype(_NUMPY[weight.stored], copy=False)
        if np.isfinite(stored).all():
            return stored
        if not np.isfinite(array).all():
            raise CheckpointError(f"{source}: tensor {name} holds values that are not finite; download it again.")
        raise CheckpointError(
            f"{source}: tensor {name} holds values up to {float(np.abs(array).max()):.3g}, more than "
            f'{weight.stored.name.lower()} can; export with `precision="fp32"`, or check the checkpoint.'
        )
