"""Writes ONNX graphs directly, operator by operator.

The networks here are few and known, so their graphs are written rather than traced from torch: a 1.5 billion
parameter U-Net takes seconds instead of minutes and a few MB instead of GB, every shape is static from the start, the
operators are exactly those chosen, and node names say which layer they belong to. Weights are pending while a graph is
written; `Graph.save` streams them, tensor by tensor, into one external-data file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

OPSET = 23
ALIGNMENT = 4096  # bytes; lets loaders map tensors straight from the file
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
        """By their names; weights are stored as they are computed with, unless told otherwise."""
        names = {"fp32": FLOAT, "fp16": HALF}
        return cls(names[precision], names[stored or precision])


@dataclass(frozen=True)
class PendingWeight:
    """A weight that a graph still waits for.

    Attributes:
        stored: dtype in the file; `value` may follow it through a Cast.
        load: makes the tensor, in float32, in the layout the graph reads.
    """

    value: ir.Value
    stored: ir.DataType
    load: Callable[[], Tensor]


class StoredWeight(NamedTuple):
    """Where a weight lies on disk: file name beside the graph, offset, size, shape and dtype."""

    location: str
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: ir.DataType


@dataclass
class Graph:
    """An ONNX graph being written.

    Args:
        name: the component.
        weights: the checkpoint's tensors, by the names its modules have.
        compute: dtype of activations and arithmetic.
        stored: dtype of weights in the file. FLOAT16 under FLOAT arithmetic puts a Cast after each, as the reference
            runs its VAE encoder (diffusers' `force_upcast`).
        variant: how layers are written where several forms compute the same.
    """

    name: str
    weights: Weights
    compute: ir.DataType = FLOAT
    stored: ir.DataType = FLOAT
    variant: Variant = VARIANTS["cpu"]
    _nodes: list[ir.Node] = field(default_factory=list)
    _inputs: list[ir.Value] = field(default_factory=list)
    _outputs: list[ir.Value] = field(default_factory=list)
    _constants: dict[Any, ir.Value] = field(default_factory=dict)
    _pending: dict[str, PendingWeight] = field(default_factory=dict)
    _scope: list[str] = field(default_factory=list)

    # Writing

    def input(self, name: str, shape: Shape) -> ir.Value:
        """A float32 input; the arithmetic's dtype comes behind a Cast. Axes given as str are free."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT))
        self._inputs.append(value)
        return self.cast(value, self.compute)

    def output(self, name: str, value: ir.Value, shape: Shape) -> None:
        """Declares a float32 output."""
        out = self.op("Cast", value, to=FLOAT) if self.compute != FLOAT else self.op("Identity", value)
        out.name, out.shape, out.type = name, ir.Shape(shape), ir.TensorType(FLOAT)
        self._outputs.append(out)

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
        """A small constant, stored once; int64 unless told otherwise."""
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            value = ir.Value(
                name=f"c{len(self._constants)}",
                const_value=ir.tensor(array),
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            )
            self._constants[key] = value
        return self._constants[key]

    def scalar(self, number: float) -> ir.Value:
        """A scalar of the arithmetic's dtype."""
        return self.constant(number, _NUMPY[self.compute])

    def weight(self, name: str) -> ir.Value:
        """A tensor of the checkpoint, as it is."""
        return self.derived(name, self.weights.shape(name), lambda: self.weights.load(name))

    def derived(self, name: str, shape: Sequence[int], load: Callable[[], Tensor]) -> ir.Value:
        """A tensor computed from the checkpoint's, under a name of its own; stored once per name."""
        pending = self._pending.get(name)
        if pending is None:
            stored = HALF if self.stored == HALF and len(shape) > 1 else self.compute
            value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(stored))
            pending = self._pending[name] = PendingWeight(value, stored, load)
        return self.cast(pending.value, self.compute)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` in another dtype; the same value if it has that one already (inputs and weights know theirs)."""
        return value if value.dtype == dtype else self.op("Cast", value, to=dtype)

    def scope(self, name: str) -> _Scope:
        """Names the nodes written inside after a layer."""
        return _Scope(self._scope, name)

    # Saving

    @property
    def inputs(self) -> list[TensorEntry]:
        """Names, dtypes and shapes of the inputs."""
        return [_entry(value) for value in self._inputs]

    @property
    def outputs(self) -> list[TensorEntry]:
        """Names, dtypes and shapes of the outputs."""
        return [_entry(value) for value in self._outputs]

    @property
    def parameters(self) -> int:
        """Number of parameters, small constants apart."""
        return sum(math.prod(_shape(w.value)) for w in self._pending.values())

    @property
    def bytes(self) -> int:
        """Bytes that the weights take in the file, alignment apart."""
        return int(sum(math.prod(_shape(w.value)) * w.stored.itemsize for w in self._pending.values()))

    def save(
        self,
        file: Path,
        progress: Callable[[int, int], object] = lambda done, total: None,
        *,
        shared: Mapping[str, StoredWeight] | None = None,
    ) -> dict[str, StoredWeight]:
        """Writes the graph to `file`, its weights to `<file>.data` beside it.

        Args:
            progress: called with the bytes of weights that are written, and of how many.
            shared: weights that lie in the same folder already; those of equal name, shape and dtype are referred to
                instead of being written again.

        Returns:
            Where each weight lies, for another graph to share.

        Raises:
            CheckpointError: a tensor has another shape than it said, or does not fit into its stored dtype.
        """
        places: dict[str, StoredWeight] = {}
        total = self.bytes
        progress(0, total)
        data = file.with_name(file.name + ".data")
        with open(data, "wb") as out:
            for name, pending in self._pending.items():
                shape = _shape(pending.value)
                place = (shared or {}).get(name)
                if place is None or (place.shape, place.dtype) != (shape, pending.stored):
                    array = self._array(name, pending)
                    alignment = ALIGNMENT if array.nbytes >= _SMALL else _SMALL_ALIGNMENT
                    out.write(b"\0" * (-out.tell() % alignment))
                    place = StoredWeight(data.name, out.tell(), array.nbytes, shape, pending.stored)
                    array.tofile(out)
                    progress(out.tell(), total)
                places[name] = place
                pending.value.const_value = ir.ExternalTensor(
                    place.location,
                    place.offset,
                    place.bytes,
                    place.dtype,
                    shape=ir.Shape(shape),
                    name=name,
                    base_dir=file.parent,
                )
        if not data.stat().st_size:
            data.unlink()
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=[*self._constants.values(), *(w.value for w in self._pending.values())],
            opset_imports={"": OPSET},
            name=self.name,
        )
        # IR version 11 goes with opset 23; ONNX Runtime 1.23 (Python 3.10) reads no newer one.
        ir.save(ir.Model(graph, ir_version=11, producer_name="amodal"), file)
        return places

    def _array(self, name: str, pending: PendingWeight) -> np.ndarray[Any, Any]:
        tensor = pending.load()
        expected = list(_shape(pending.value))
        source = self.weights.source
        if list(tensor.shape) != expected:
            raise CheckpointError(
                f"{source}: tensor {name} has shape {list(tensor.shape)}, the config asks for {expected}."
            )
        array: np.ndarray[Any, Any] = tensor.detach().contiguous().numpy()
        with np.errstate(over="ignore"):
            stored = array.astype(_NUMPY[pending.stored], copy=False)
        if not np.isfinite(stored).all():
            if not np.isfinite(array).all():
                raise CheckpointError(f"{source}: tensor {name} holds values that are not finite; download it again.")
            raise CheckpointError(
                f"{source}: tensor {name} holds values up to {float(np.abs(array).max()):.3g}, more than "
                f'{pending.stored.name.lower()} can; export with `precision="fp32"`, or check the checkpoint.'
            )
        return stored


def _shape(value: ir.Value) -> tuple[int, ...]:
    return tuple(int(n) for n in value.shape or ())  # type: ignore[arg-type]


def _entry(value: ir.Value) -> TensorEntry:
    shape = tuple(n if isinstance(n, int) else str(n.value) for n in value.shape or ())
    return TensorEntry(name=value.name or "", dtype="float32", shape=shape)


class _Scope:
    def __init__(self, stack: list[str], name: str) -> None:
        self._stack, self._name = stack, name

    def __enter__(self) -> None:
        self._stack.append(self._name)

    def __exit__(self, *exc: object) -> None:
        self._stack.pop()
