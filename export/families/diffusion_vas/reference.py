"""What the untouched torch modules say: the reference that every exported graph is held against.

A checkpoint's module stays on the meta device; each layer's weights come just before it runs and go right after, so
that a U-Net of 1.5 billion parameters is evaluated in the memory of its largest layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...graph.weights import Weights
from .unet_plan import Plan


@contextmanager
def streamed(module: nn.Module, weights: Weights) -> Iterator[nn.Module]:
    """A meta-device module that runs in float32, one layer's weights at a time.

    Args:
        module: from `Network.build`.
        weights: its tensors, by the names of `module.state_dict()`.
    """
    hooks = []
    for prefix, layer in module.named_modules():
        names = list(layer._parameters)
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
            if layer._parameters[name] is not None:
                tensor = weights.load(f"{prefix}.{name}" if prefix else name)
                layer._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    return fill


def _emptier(empty: dict[str, Any]) -> Any:
    def drop(layer: nn.Module, _: Any, __: Any) -> None:
        layer._parameters.update(empty)

    return drop


class Rows:
    """Context rows that diffusers' U-Net must take as they are.

    diffusers' class repeats each clip's context over the frames; the authors' does not, and gets a row per frame.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.shape = rows.shape

    def repeat_interleave(self, *_: Any, **__: Any) -> Tensor:
        """The rows, unrepeated."""
        return self.rows


def unet_velocity(
    module: Any,
    latents: Tensor,
    conditioning: Tensor,
    context: Tensor,
    sigma: float,
    time_ids: Tensor,
    sequence: bool,
) -> Tensor:
    """The v-prediction of the untouched U-Net.

    Args:
        latents: [1, T, 4, h, w], scaled; conditioning: [B, T, 8, h, w]; context: [B, T, D].
        sequence: every frame attends to all T tokens of its row, instead of to its own one.
    """
    count, frames = conditioning.shape[:2]
    tokens = context[:, None].expand(-1, frames, -1, -1) if sequence else context[:, :, None]
    sample = torch.cat([latents.expand(count, -1, -1, -1, -1), conditioning], dim=2)
    timestep = 0.25 * torch.log(torch.tensor([sigma], dtype=torch.float32))
    velocity: Tensor = module(
        sample, timestep, Rows(tokens.flatten(0, 1)), time_ids[None].expand(count, -1), return_dict=False
    )[0]
    return velocity


def conditioner_outputs(
    module: Any, plan: Plan, context: Tensor, sigmas: Tensor, time_ids: Tensor, sequence: bool
) -> dict[str, Tensor]:
    """What `unet_conditioner` must give, layer by layer from the untouched U-Net's own modules."""
    layer = module.get_submodule
    added = module.add_time_proj(time_ids).reshape(1, -1)
    emb = module.time_embedding(module.time_proj(0.25 * torch.log(sigmas))) + module.add_embedding(added)
    emb = torch.nn.functional.silu(emb)
    rows = [
        layer(f"{r.name}.{part}_res_block.time_emb_proj")(emb)
        for r in plan.res_blocks
        for part in ("spatial", "temporal")
    ]
    result = {"time_table": torch.cat(rows, dim=-1)}
    packed: dict[str, list[Tensor]] = {}
    for t, spatial, temporal in plan.layers:
        for name, block, tokens in (("spatial", spatial, context), ("temporal", temporal, context[:, 0])):
            attn = layer(f"{block}.attn2")
            if sequence:
                packed.setdefault("keys", []).append(attn.to_k(context))
                packed.setdefault("values", []).append(attn.to_v(context))
                continue
            # Any query gives the same over one key; the constant also holds the bias of the attention before.
            query = torch.zeros(tokens[..., :1].numel(), 1, t.channels)
            out = attn(query, encoder_hidden_states=tokens.reshape(-1, 1, tokens.shape[-1]))
            bias = layer(f"{block}.attn1.to_out.0")(torch.zeros(1, t.channels))
            packed.setdefault(name, []).append(out.reshape(*tokens.shape[:-1], t.channels) + bias)
    return result | {name: torch.cat(parts, dim=-1) for name, parts in packed.items()}
