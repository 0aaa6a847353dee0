"""Reading and writing the operators of an OpenVINO network, for what rewrites them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def shape_of(value: Any) -> list[int]:
    """The shape of an output of a network of static shapes."""
    return [dimension.get_length() for dimension in value.get_partial_shape()]


def key_of(value: Any) -> tuple[str, int]:
    """What tells an output from the others of its network."""
    return value.get_node().get_friendly_name(), value.get_index()


def source_of(node: Any, place: int = 0) -> Any:
    """The operator that an operator's input comes from."""
    return node.input_value(place).get_node()


def unconverted(node: Any) -> Any:
    """The operator that the first input comes from, before changes of type."""
    node = source_of(node)
    while node.get_type_name() == "Convert":
        node = source_of(node)
    return node


def constant(value: Any) -> Any:
    """The numbers of a constant, also behind a reshape or a change of type; None if it is none."""
    node = value.get_node()
    while node.get_type_name() in ("Reshape", "Convert"):
        node = source_of(node)
    return np.asarray(node.get_data()) if node.get_type_name() == "Constant" else None


def integers(value: Any) -> list[int] | None:
    """The same as a list of whole numbers."""
    numbers = constant(value)
    return None if numbers is None else [int(number) for number in numbers.ravel()]


class Operators:
    """Makes operators, with names that no exported graph has.

    Args:
        prefix: of the names.
    """

    def __init__(self, prefix: str) -> None:
        from openvino import opset13

        self._opset, self._prefix, self._made = opset13, prefix, 0

    def new(self, kind: str, *arguments: Any) -> Any:
        """The output of a new operator; `kind` and `arguments` as in `openvino.opset13`."""
        node = getattr(self._opset, kind)(*arguments)
        self._made += 1
        node.set_friendly_name(f"{self._prefix}/{kind}_{self._made}")
        return node.output(0)

    def numbers(self, values: Any, kind: type = np.int64) -> Any:
        """A constant."""
        return self.new("constant", np.asarray(values, kind))

    def reshaped(self, value: Any, shape: Sequence[int]) -> Any:
        """A value in another shape."""
        return value if shape_of(value) == list(shape) else self.new("reshape", value, self.numbers(shape), False)

    def transposed(self, value: Any, order: Sequence[int]) -> Any:
        """A value with its axes in another order."""
        return self.new("transpose", value, self.numbers(order))

    def channels_last(self, value: Any) -> Any:
        """[B, C, T, H, W] as [B, T, H, W, C]."""
        return self.transposed(value, (0, 2, 3, 4, 1))

    def channels_first(self, value: Any) -> Any:
        """[B, T, H, W, C] as [B, C, T, H, W]."""
        return self.transposed(value, (0, 4, 1, 2, 3))

    def typed(self, value: Any, kind: Any) -> Any:
        """A value as numbers of another type, an `openvino.Type`."""
        return value if value.get_element_type() == kind else self.new("convert", value, kind.get_type_name())
