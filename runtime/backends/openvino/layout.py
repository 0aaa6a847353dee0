"""Keeps the maps of a network channels-last from one end to the other, for OpenVINO's CPU plugin.

The plugin convolves channels-last, and an exported graph keeps telling it to go back: frames [B*T, C, H, W] are
reshaped and transposed into time [B, C, T, P] for each temporal convolution and into [N, G, C/G*P] for each group
normalisation, P = H*W, and every such step is a pass over memory in each direction. A seventh of the default U-Net's
time and a third of the VAE decoder's went there. Here all of these become views of one map [B, C, T, H, W], which lies
in memory as [B, T, H, W, C]: spatial kernels are (1, k, k), temporal ones (k, 1, 1), tokens of an attention are the
same memory again. What is not recognised stays as it was, behind a conversion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .graph import Operators, integers, key_of, shape_of, source_of
from .norm import find_group_norm, group_normalised

# How a value of the original network shows a map [B, C, T, H, W]:
# frames [B*T, C, H, W], split [B, T, C, P], time [B, C, T, P], flat [B*T, C, P].
_View = Literal["frames", "split", "time", "flat"]
_ELEMENTWISE = {"Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class _Map:
    value: Any  # ov.Output of [B, C, T, H, W]
    view: _View

    @property
    def shape(self) -> list[int]:
        return shape_of(self.value)


def keep_channels_last(network: Any) -> int:
    """Rewrites a network of static shapes in place; returns how many of its operators took another form.

    Args:
        network: an `openvino.Model` read from one of the graphs of `amodal export`, reshaped to static shapes.
    """
    names = [node.get_friendly_name() for node in network.get_ops()]
    if network.is_dynamic() or len(set(names)) != len(names):
        return 0
    return _Rewriting(network).run()


def largest_attention(network: Any) -> int:
    """How many scores the largest attention of a network of static shapes has; 0 without any."""
    attentions = (node for node in network.get_ops() if node.get_type_name() == "Softmax")
    return max((math.prod(shape_of(node.output(0))) for node in attentions), default=0)


class _Rewriting:
    def __init__(self, network: Any) -> None:
        self._network, self._operators = network, Operators("channels_last")
        self._maps: dict[tuple[str, int], _Map] = {}  # by the original value that a map replaces
        self._converted: dict[tuple[str, int], _Map] = {}  # by the original value that a map is made of
        self._tokens: dict[tuple[str, int], Any] = {}  # values of the same shape as the original ones
        self._flattened: dict[tuple[str, int], Any] = {}
        self._frames = self._frames_of_a_row()
        self._handlers: dict[str, Callable[[Any], _Map | None]] = {
            "Convolution": self._convolution,
            "GroupConvolution": self._group_norm,
            "GroupNormalization": self._group_norm,
            "Reshape": self._reshape,
            "Transpose": self._transpose,
            "Concat": self._concat,
            "DepthToSpace": self._depth_to_space,
            "Interpolate": self._interpolate,
            "Convert": self._convert,
            **dict.fromkeys(_ELEMENTWISE, self._elementwise),
        }

    def run(self) -> int:
        changed = 0
        for node in self._network.get_ordered_ops():
            handler = self._handlers.get(node.get_type_name())
            made = handler(node) if handler is not None else None
            if made is not None:
                self._maps[key_of(node.output(0))] = made
                changed += node.get_type_name() not in ("Reshape", "Transpose", "Convert")
        self._connect()
        self._network.validate_nodes_and_infer_types()
        return changed

    def _connect(self) -> None:
        """What is left of the original network, seen from its results, reads the new values."""
        waiting, seen = list(self._network.get_results()), set()
        while waiting:
            node = waiting.pop()
            if node.get_friendly_name() in seen:
                continue
            seen.add(node.get_friendly_name())
            for entry in node.inputs():
                key = key_of(entry.get_source_output())
                if key in self._tokens:
                    entry.replace_source_output(self._tokens[key])
                elif key in self._maps:
                    entry.replace_source_output(self._flatten(key))
                waiting.append(entry.get_source_output().get_node())

    # -- into and out of maps ----------------------------------------------------------------------------------------

    def _frames_of_a_row(self) -> int | None:
        """T, from the first change between frames and time; None where a network has none."""
        for node in self._network.get_ordered_ops():
            if node.get_type_name() == "Transpose" and integers(node.input_value(1)) == [0, 2, 1, 3]:
                before, after = source_of(node), shape_of(node.output(0))
                if before.get_type_name() == "Reshape":
                    whole = shape_of(before.input_value(0))
                    if len(whole) == 4 and whole[:2] == [after[0] * after[2], after[1]]:
                        return after[2]
        return None

    def _rows(self, count: int) -> tuple[int, int] | None:
        """B and T of B*T frames."""
        frames = self._frames or count
        return None if not count or count % frames else (count // frames, frames)

    def _map(self, value: Any) -> _Map | None:
        """The map that a value of four axes shows, converted if need be."""
        known = self._known(value)
        shape = shape_of(value)
        rows = self._rows(shape[0]) if len(shape) == 4 else None
        if known is not None or rows is None:
            return known
        parts = self._operators.reshaped(value, [*rows, *shape[1:]])
        known = _Map(self._operators.transposed(parts, (0, 2, 1, 3, 4)), "frames")
        self._converted[key_of(value)] = known
        return known

    def _known(self, value: Any) -> _Map | None:
        key = key_of(value)
        return self._maps.get(key) or self._converted.get(key)

    def _flatten(self, key: tuple[str, int]) -> Any:
        """A map in the shape that it had in the original network."""
        if key not in self._flattened:
            shown = self._maps[key]
            b, c, t, h, w = shown.shape
            value, p = shown.value, h * w
            if shown.view != "time":
                value = self._operators.transposed(value, (0, 2, 1, 3, 4))
            shapes = {"frames": (b * t, c, h, w), "split": (b, t, c, p), "time": (b, c, t, p), "flat": (b * t, c, p)}
            self._flattened[key] = self._operators.reshaped(value, shapes[shown.view])
        return self._flattened[key]

    def _reshape(self, node: Any) -> _Map | None:
        source, shape = node.input_value(0), shape_of(node.output(0))
        shown = self._known(source)
        if shown is None:
            return self._from_tokens(node, shape)
        b, c, t, h, w = shown.shape
        views: dict[_View, list[int]] = {
            "frames": [b * t, c, h, w],
            "split": [b, t, c, h * w],
            "flat": [b * t, c, h * w],
        }
        if shown.view == "time":
            return None
        view = next((view for view, expected in views.items() if shape == expected), None)
        return None if view is None else _Map(shown.value, view)

    def _from_tokens(self, node: Any, shape: list[int]) -> _Map | None:
        """[B*T, P, C], transposed and reshaped to frames, is the map's own order in memory."""
        before = source_of(node)
        rows = self._rows(shape[0]) if len(shape) == 4 else None
        if rows is None or before.get_type_name() != "Transpose" or integers(before.input_value(1)) != [0, 2, 1]:
            return None
        count, c, h, w = shape
        if shape_of(before.input_value(0)) != [count, h * w, c]:
            return None
        value = self._operators.reshaped(before.input_value(0), [*rows, h, w, c])
        return _Map(self._operators.channels_first(value), "frames")

    def _transpose(self, node: Any) -> _Map | None:
        shown = self._known(node.input_value(0))
        order = integers(node.input_value(1))
        if shown is None:
            return None
        if order == [0, 2, 1, 3] and shown.view in ("split", "time"):
            return _Map(shown.value, "time" if shown.view == "split" else "split")
        if order == [0, 2, 1] and shown.view == "flat":
            b, c, t, h, w = shown.shape
            last = self._operators.channels_last(shown.value)
            self._tokens[key_of(node.output(0))] = self._operators.reshaped(last, (b * t, h * w, c))
        return None

    # -- layers ------------------------------------------------------------------------------------------------------

    def _convolution(self, node: Any) -> _Map | None:
        shown = self._map(node.input_value(0))
        if shown is None or shown.view not in ("frames", "time"):
            return None
        settings = node.get_attributes()
        weight = node.input_value(1)
        begin, end, strides, dilations = (
            list(settings[name]) for name in ("pads_begin", "pads_end", "strides", "dilations")
        )
        if settings["auto_pad"] != "explicit":
            return None
        if shown.view == "frames":
            place = 2
            begin, end, strides, dilations = [0, *begin], [0, *end], [1, *strides], [1, *dilations]
        elif shape_of(weight)[3] == strides[1] == 1 and begin[1] == end[1] == 0:
            place = 4
            begin, end, strides, dilations = [*begin, 0], [*end, 0], [*strides, 1], [*dilations, 1]
        else:
            return None  # along P, a kernel reaches over the ends of lines
        weight = self._operators.new("unsqueeze", weight, self._operators.numbers([place]))
        return _Map(self._operators.new("convolution", shown.value, weight, strides, begin, end, dilations), shown.view)

    def _elementwise(self, node: Any) -> _Map | None:
        sources = node.input_values()
        views = {shown.view for shown in map(self._known, sources) if shown is not None}
        view = next(iter(views), None)
        if len(views) != 1 or view not in ("frames", "time"):
            return None
        shape = shape_of(node.output(0))
        values = [self._operand(source, view, shape) for source in sources]
        maps = [
            shape_of(value)
            for value, source in zip(values, sources, strict=True)
            if value and shape_of(source) == shape
        ]
        if any(value is None for value in values) or any(other != maps[0] for other in maps):
            return None
        return _Map(self._operators.new(_ELEMENTWISE[node.get_type_name()], *values), view)

    def _operand(self, source: Any, view: _View, result: list[int]) -> Any:
        """An operand that is a map, or one number for each channel."""
        shape = shape_of(source)
        shown = self._known(source)
        if shown is None and shape == result and view == "frames":
            shown = self._map(source)
        if shown is not None:
            return shown.value if shape == result else None
        if math.prod(shape) == 1:
            return self._operators.reshaped(source, [1] * 5)
        return self._operators.reshaped(source, [1, shape[1], 1, 1, 1]) if shape == [1, result[1], 1, 1] else None

    def _concat(self, node: Any) -> _Map | None:
        if len(shape_of(node.output(0))) != 4 or node.get_attributes()["axis"] not in (1, -3):
            return None
        if all(self._known(source) is None for source in node.input_values()):
            return None
        parts = [part for part in map(self._map, node.input_values()) if part is not None and part.view == "frames"]
        if len(parts) < node.get_input_size() or len({(part.shape[0], *part.shape[2:]) for part in parts}) > 1:
            return None
        return _Map(self._operators.new("concat", [part.value for part in parts], 1), "frames")

    def _depth_to_space(self, node: Any) -> _Map | None:
        shown = self._known(node.input_value(0))
        settings = node.get_attributes()
        if shown is None or shown.view != "frames" or settings["mode"] != "blocks_first":
            return None
        b, c, t, h, w = shown.shape
        r = settings["block_size"]
        c //= r * r
        # Channels are (row, column, C): a row's columns are neighbours in memory already.
        value = self._operators.reshaped(self._operators.channels_last(shown.value), (b * t * h, w, r, r * c))
        value = self._operators.reshaped(self._operators.transposed(value, (0, 2, 1, 3)), (b, t, h * r, w * r, c))
        return _Map(self._operators.channels_first(value), "frames")

    def _interpolate(self, node: Any) -> _Map | None:
        shown = self._known(node.input_value(0))
        settings, shape = node.get_attributes(), shape_of(node.output(0))
        rule = tuple(settings[name].lower() for name in ("mode", "coordinate_transformation_mode", "nearest_mode"))
        padded = any([*settings["pads_begin"], *settings["pads_end"]])
        if shown is None or shown.view != "frames" or padded or rule != ("nearest", "asymmetric", "floor"):
            return None
        if shape[1] != shown.shape[1]:
            return None
        sizes, axes = self._operators.numbers(shape[2:]), self._operators.numbers([3, 4])
        value = self._operators.new(
            "interpolate", shown.value, sizes, "nearest", "sizes", [0], [0], *rule[1:], False, -0.75, axes
        )
        return _Map(value, "frames")

    def _convert(self, node: Any) -> _Map | None:
        shown = self._known(node.input_value(0))
        if shown is None:
            return None
        return _Map(self._operators.typed(shown.value, node.get_output_element_type(0)), shown.view)

    def _group_norm(self, node: Any) -> _Map | None:
        found = find_group_norm(node)
        shown = None if found is None else self._map(found.value)
        if found is None or shown is None or shown.view not in ("frames", "time"):
            return None
        axes = (3, 4) if shown.view == "frames" else (2, 3, 4)
        return _Map(group_normalised(self._operators, found, shown.value, axes), shown.view)
