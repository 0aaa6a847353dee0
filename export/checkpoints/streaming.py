"""Runs a torch module in the memory of its largest layer, so that one of 1.5 billion parameters needs no 6 GB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..graph.weights import Weights


@contextmanager
def streamed(module: nn.Module, weights: Weights) -> Iterator[Any]:
    """A module on the meta device that runs in float32; each layer has its weights only while it runs.

    Args:
        module: with all parameters on the meta device.
        weights: its tensors, by the names of `module.state_dict()`.
    """
    hooks = []
    for prefix, layer in module.named_modules():
        names = [name for name, parameter in layer._parameters.items() if parameter is not None]
        if names:
            hooks.append(layer.register_forward_pre_hook(_filler(prefix, names, weights)))
            hooks.append(layer.register_forward_hook(_emptier(dict(layer._parameters)), always_call=True))
    try:
        with torch.no_grad():
            yield module.eval()
    finally:
        for hook in hooks:
            hook.remove()


def _filler(prefix: str, names: list[str], weights: Weights) -> Any:
    def fill(layer: nn.Module, _: Any) -> None:
        for name in names:
            tensor = weights.load(f"{prefix}.{name}" if prefix else name)
            layer._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    return fill


def _emptier(empty: dict[str, Any]) -> Any:
    def drop(layer: nn.Module, _: Any, __: Any) -> None:
        layer._parameters.update(empty)

    return drop
