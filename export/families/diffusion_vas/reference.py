"""Runs the untouched torch modules of a stage, with which the exported graphs are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints.checkpoint import Network, StageCheckpoint
from ...graph.weights import Weights
from ...plan import Arrays
from .unet_structure import UNetStructure

_SIGMAS = (700.0, 5.0, 0.5, 0.002)
_TIME_IDS = (7.0, 127.0, 0.02)
_SEED = 20250612

Outputs = dict[str, Tensor]


class UnrepeatedContext:
    """Context rows that diffusers' U-Net does not repeat.

    diffusers' class repeats each clip's context over the frames; the authors' takes a row per frame instead.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.shape = rows.shape

    def repeat_interleave(self, *_: Any, **__: Any) -> Tensor:
        """Returns the rows."""
        return self.rows


@dataclass(frozen=True)
class StageReference:
    """A stage's modules; each method runs one on its graph's inputs, as an `amodal.export.plan.Reference`.

    Attributes:
        sequence: whether every frame attends to all T context tokens of its row, instead of its own.
    """

    checkpoint: StageCheckpoint
    structure: UNetStructure
    sequence: bool

    def image_encoder(self, inputs: Arrays) -> tuple[Arrays, Outputs]:
        """Embeds random pixels."""
        with _running(self.checkpoint.image_encoder) as module:
            return inputs, {"embeddings": module(torch.from_numpy(inputs["pixels"])).image_embeds}

    def vae_encoder(self, inputs: Arrays) -> tuple[Arrays, Outputs]:
        """Encodes random frames; returns the mode of the posterior."""
        with _running(self.checkpoint.vae) as module:
            return inputs, {"latents": module.encode(torch.from_numpy(inputs["frames"])).latent_dist.mode()}

    def vae_decoder(self, inputs: Arrays) -> tuple[Arrays, Outputs]:
        """Decodes random latents."""
        latents = torch.from_numpy(inputs["latents"])
        with _running(self.checkpoint.vae) as module:
            return inputs, {"frames": module.decode(latents, num_frames=len(latents)).sample}

    def unet_conditioner(self, inputs: Arrays) -> tuple[Arrays, Outputs]:
        """Computes the constants of a random context, with realistic noise levels and time ids."""
        inputs = inputs | {"sigmas": np.asarray(_SIGMAS, np.float32), "time_ids": np.asarray(_TIME_IDS, np.float32)}
        context, sigmas, time_ids = (torch.from_numpy(inputs[name]) for name in ("context", "sigmas", "time_ids"))
        with _running(self.checkpoint.unet) as module:
            return inputs, self._constants(module, context, sigmas, time_ids)

    def unet(self, inputs: Arrays) -> tuple[Arrays, Outputs]:
        """Predicts v from random latents and context; adds the context's constants to the inputs."""
        latents, conditioning = (torch.from_numpy(inputs[name]) for name in ("latents", "conditioning"))
        count, frames = conditioning.shape[:2]
        shape = (count, frames, self.structure.config["cross_attention_dim"])
        context = torch.from_numpy(np.random.default_rng(_SEED).standard_normal(shape, np.float32))
        sigma, time_ids = torch.tensor(_SIGMAS[1:2]), torch.tensor(_TIME_IDS)
        tokens = context[:, None].expand(-1, frames, -1, -1) if self.sequence else context[:, :, None]
        with _running(self.checkpoint.unet) as module:
            constants = self._constants(module, context, sigma, time_ids)
            (velocity,) = module(
                torch.cat([latents.expand(count, -1, -1, -1, -1), conditioning], dim=2),
                0.25 * torch.log(sigma),
                UnrepeatedContext(tokens.flatten(0, 1)),
                time_ids[None].expand(count, -1),
                return_dict=False,
            )
        constants["time"] = constants.pop("time_table")[0]
        return inputs | {name: value.numpy() for name, value in constants.items()}, {"velocity": velocity}

    def _constants(self, module: Any, context: Tensor, sigmas: Tensor, time_ids: Tensor) -> Outputs:
        """Computes what `unet_conditioner` does, layer by layer with the U-Net's own modules."""
        layer = module.get_submodule
        added = module.add_time_proj(time_ids).reshape(1, -1)
        emb = module.time_embedding(module.time_proj(0.25 * torch.log(sigmas))) + module.add_embedding(added)
        emb = torch.nn.functional.silu(emb)
        rows = [
            layer(f"{block.name}.{part}_res_block.time_emb_proj")(emb)
            for block in self.structure.res_blocks
            for part in ("spatial", "temporal")
        ]
        packed: dict[str, list[Tensor]] = {}
        for t, spatial, temporal in self.structure.layers:
            for name, block, tokens in (("spatial", spatial, context), ("temporal", temporal, context[:, 0])):
                attn = layer(f"{block}.attn2")
                if self.sequence:
                    packed.setdefault("keys", []).append(attn.to_k(context))
                    packed.setdefault("values", []).append(attn.to_v(context))
                    continue
                # With one key, every query has the same output; the constant includes the preceding attention's bias.
                query = torch.zeros(tokens[..., :1].numel(), 1, t.channels)
                out = attn(query, encoder_hidden_states=tokens.reshape(-1, 1, tokens.shape[-1]))
                bias = layer(f"{block}.attn1.to_out.0")(torch.zeros(1, t.channels))
                packed.setdefault(name, []).append(out.reshape(*tokens.shape[:-1], t.channels) + bias)
        return {name: torch.cat(parts, dim=-1) for name, parts in ({"time_table": rows} | packed).items()}


def _running(network: Network) -> AbstractContextManager[Any]:
    module = network.build()
    return streamed(module, network.weights_for(module))


@contextmanager
def streamed(module: nn.Module, weights: Weights) -> Iterator[Any]:
    """Makes a module on the meta device run in float32, in the memory of its largest layer.

    Each layer has its weights only while it runs: all of a U-Net's 1.5 billion would need 6 GB.

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
