"""Group normalisation of maps [B, C, T, H, W], written out in sums: they need no other layout in memory.

The paper is Wu & He, ECCV 2018, equation 2. In bfloat16 sums have eight bits, so a variance must not be the difference
of two large moments: the mean is taken off first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Operators, constant, integers, shape_of, unconverted

_SMALL = 256  # channels up to which one product over all of them is cheaper than one to groups and one back


@dataclass(frozen=True)
class GroupNorm:
    """A group normalisation that was found in a network.

    Attributes:
        value: what it normalises, [N, C, ...].
        gain: a number for each channel, as any shape.
        bias: the same, or None where an operator of its own adds it.
    """

    value: Any
    groups: int
    epsilon: float
    gain: Any
    bias: Any = None


def find_group_norm(node: Any) -> GroupNorm | None:
    """What ends at an operator, if that is a group normalisation, in either form that `amodal export` writes."""
    if node.get_type_name() == "GroupNormalization":
        settings = node.get_attributes()
        return GroupNorm(
            node.input_value(0), settings["num_groups"], settings["epsilon"], node.input_value(1), node.input_value(2)
        )
    return _from_instance_norm(node)


def _from_instance_norm(node: Any) -> GroupNorm | None:
    """Groups, instance normalisation, maps, and a depthwise 1x1 kernel."""
    chain = []
    inner = node
    for kind in ("Reshape", "Add", "Multiply", "MVN", "Reshape"):
        inner = unconverted(inner)
        if inner.get_type_name() != kind:
            return None
        chain.append(inner)
    whole, shift, scale, norm, groups = chain
    settings, affine = norm.get_attributes(), node.get_attributes()
    ones, zeros = constant(scale.input_value(1)), constant(shift.input_value(1))
    original, shape = shape_of(groups.input_value(0)), shape_of(groups.output(0))
    rows, channels = original[:2]
    plain = (
        settings["normalize_variance"]
        and settings["eps_mode"].upper() == "INSIDE_SQRT"
        and integers(norm.input_value(1)) in ([2], [-1])
        and ones is not None
        and zeros is not None
        and np.all(ones == 1)
        and np.all(zeros == 0)
        and shape_of(whole.output(0)) == original
        and len(shape) == 3
        and shape[0] == rows
        and channels % shape[1] == 0
        and shape_of(node.input_value(1)) == [channels, 1, 1, 1, 1]
        and affine["strides"] == [1, 1]
        and not any([*affine["pads_begin"], *affine["pads_end"]])
    )
    return GroupNorm(groups.input_value(0), shape[1], settings["eps"], node.input_value(1)) if plain else None


def group_normalised(operators: Operators, found: GroupNorm, value: Any, axes: Sequence[int]) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * gain (+ bias) of a map, over the channels of a group and `axes`."""
    shape = shape_of(value)
    channels, positions = shape[1], int(np.prod([shape[axis] for axis in axes]))
    each = channels // found.groups
    new, numbers = operators.new, operators.numbers
    along, epsilon, kind = numbers(axes), numbers(found.epsilon, np.float32), value.get_element_type()
    single = epsilon.get_element_type()
    x = operators.typed(value, single)
    mean = operators.channels_last(new("reduce_mean", x, along, True))
    mean = _over_groups(operators, mean, channels, found.groups, each)
    centred = new("subtract", x, operators.channels_first(mean))
    length = new("reduce_l2", centred, along, True)
    square = operators.channels_last(new("power", length, numbers(2.0, np.float32)))
    variance = _over_groups(operators, square, channels, found.groups, each * positions)
    inverse = new("power", new("add", variance, epsilon), numbers(-0.5, np.float32))
    gain = operators.typed(operators.reshaped(found.gain, (1, 1, 1, 1, channels)), single)
    scaled = new("multiply", centred, operators.channels_first(new("multiply", inverse, gain)))
    scaled = operators.typed(scaled, kind)
    if found.bias is None:
        return scaled
    return new("add", scaled, operators.reshaped(found.bias, [1, channels, 1, 1, 1]))


def _over_groups(operators: Operators, value: Any, channels: int, groups: int, count: int) -> Any:
    """Sums over each group's channels, the last axis, divided by `count`, for every channel of the group."""
    if channels > groups:
        member = np.kron(np.eye(groups), np.ones((channels // groups, 1)))  # [C, G]
        for matrix in [member @ member.T] if channels <= _SMALL else [member, member.T]:
            value = operators.new("matmul", value, operators.numbers(matrix, np.float32), False, False)
    return operators.new("multiply", value, operators.numbers(1 / count, np.float32))
