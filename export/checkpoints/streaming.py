"""Runs a torch module in the memory of its largest layer: 1.5 billion parameters would need 6 GB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ..graph.weights import Weights


@contextmanager
def streamed(module: nn.Module, weights: Weights) -> Iterator[Any]:
    """Makes a module on the meta device run in float32; each layer has its weights only while it runs.

    Args:
        weights: the module's tensors, by the names of `module.state_dict()`.
    """

    def fill(prefix: str, empty: dict[str, Any], layer: nn.Module, _: Any) -> None:
        for name in empty:
            tensor = weights.load(f"{prefix}.{name}" if prefix else name)
            layer._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    def drop(empty: dict[str, Any], layer: nn.Module, _: Any, __: Any) -> None:
        layer._parameters.update(empty)

    hooks = []
    for prefix, layer in module.named_modules():
        empty = {name: parameter for name, parameter in layer._parameters.items() if parameter is not None}
        if empty:
            hooks.append(layer.register_forward_pre_hook(partial(fill, prefix, empty)))
            hooks.append(layer.register_forward_hook(partial(drop, empty), always_call=True))
    try:
        with torch.no_grad():
            yield module.eval()
    finally:
        for hook in hooks:
            hook.remove()
