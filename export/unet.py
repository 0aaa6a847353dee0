"""The spatio-temporal U-Net as two graphs: `unet_conditioner`, once per clip, and `unet`, once per step.

Exact restructurings (each is tested against diffusers' untouched `UNetSpatioTemporalConditionModel`):

* Cross-attention over a single token is `to_out(to_v(context))`, because a softmax over one key is 1. In the
  `reference` and `aligned` context layouts it therefore is one vector per row and frame (spatial) or per row
  (temporal), which the conditioner computes once; query, key and their norm disappear. `to_out`'s bias of the
  self-attention just before is added there too.
* In the `sequence` layout, the keys and values of the T tokens are computed once per clip.
* The sigmas are known in advance, so the time MLPs and every `time_emb_proj` become a table with one row per step.
* The frame position embedding depends on the weights alone and becomes a constant.
* The temporal feed-forward and norms work per token, so only the attention itself sees [B*HW, T, C].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from .blocks import Variant, attention, feed_forward, group_norm, linear, res_block, self_attention
from .weights import Weights

ContextLayout = Literal["reference", "aligned", "sequence"]


def build_unet(config: dict[str, Any]) -> UNetSpatioTemporalConditionModel:
    """diffusers' module for a checkpoint's config, with random weights, on the current default device."""
    return UNetSpatioTemporalConditionModel(**config).eval()


def res_blocks(unet: nn.Module) -> list[tuple[str, Any]]:
    """Every `SpatioTemporalResBlock` with its dotted name, in module order: the order of the time table."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, SpatioTemporalResBlock)]


def transformers(unet: nn.Module) -> list[tuple[str, Any]]:
    """Every `TransformerSpatioTemporalModel` with its dotted name: the order of the context constants."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, TransformerSpatioTemporalModel)]


def gates(unet: nn.Module) -> list[tuple[str, Any]]:
    """Every `GEGLU` with its dotted name."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, GEGLU)]


def _block_pairs(unet: nn.Module) -> Iterator[tuple[Any, Any]]:
    for _, model in transformers(unet):
        yield from zip(model.transformer_blocks, model.temporal_transformer_blocks, strict=True)


class _Slices:
    """Hands out consecutive slices of packed constants, in the order in which they were packed."""

    def __init__(self, packed: Tensor) -> None:
        self._packed = packed
        self._at = 0

    def take(self, width: int) -> Tensor:
        self._at += width
        return self._packed[..., self._at - width : self._at]


class UNetConditioner(nn.Module):
    """`unet_conditioner`: what stays the same over a clip or is known for every step beforehand.

    Inputs (float32): `context` [B, T, D] the CLIP rows, `sigmas` [S], `time_ids` [3] (fps - 1, motion bucket,
    noise augmentation). Outputs (float32): `time_table` [S, P] and, for the layouts with one token per frame,
    `spatial` [B, T, C'] and `temporal` [B, C'], or, for `sequence`, `keys` and `values` [B, T, C''].
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel, layout: ContextLayout) -> None:
        super().__init__()
        self.unet = unet
        self.layout = layout

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return ("time_table", *context_names(self.layout))

    def forward(self, context: Tensor, sigmas: Tensor, time_ids: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return (self._time_table(sigmas, time_ids), *self._context(context))

    def _time_table(self, sigmas: Tensor, time_ids: Tensor) -> Tensor:
        unet = self.unet
        # EDM: c_noise = ln(sigma) / 4; diffusers' EulerDiscreteScheduler calls it the continuous timestep.
        time = sinusoid(0.25 * torch.log(sigmas), unet.config.block_out_channels[0])
        added = sinusoid(time_ids, unet.config.addition_time_embed_dim).reshape(1, -1)
        emb = F.silu(unet.time_embedding(time) + unet.add_embedding(added))
        rows = [
            projection(emb)
            for _, block in res_blocks(unet)
            for projection in (block.spatial_res_block.time_emb_proj, block.temporal_res_block.time_emb_proj)
        ]
        return torch.cat(rows, dim=-1)

    def _context(self, context: Tensor) -> tuple[Tensor, ...]:
        if self.layout == "sequence":
            pairs = [block.attn2 for pair in _block_pairs(self.unet) for block in pair]
            keys = torch.cat([attn.to_k(context) for attn in pairs], dim=-1)
            values = torch.cat([attn.to_v(context) for attn in pairs], dim=-1)
            return keys, values
        first = context[:, 0]  # what the temporal blocks see: the first row of each half
        spatial, temporal = [], []
        for block, temporal_block in _block_pairs(self.unet):
            spatial.append(_constant(block, context))
            temporal.append(_constant(temporal_block, first))
        return torch.cat(spatial, dim=-1), torch.cat(temporal, dim=-1)


def context_names(layout: ContextLayout) -> tuple[str, str]:
    """Names of the two packed context tensors that go from the conditioner to the U-Net."""
    return ("keys", "values") if layout == "sequence" else ("spatial", "temporal")


def _constant(block: Any, context: Tensor) -> Tensor:
    out: Tensor = block.attn2.to_out[0](block.attn2.to_v(context)) + block.attn1.to_out[0].bias
    return out


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding [N] -> [N, width], cosines first, periods from 1 to 10000 (as in diffusers' UNet)."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000.0) / half))
    angle = x[:, None] * frequency[None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


class UNetStep(nn.Module):
    """`unet`: one evaluation of the denoiser.

    Inputs (float32): `latents` [1, T, 4, h, w] already scaled by c_in, `conditioning` [B, T, 8, h, w], `time` [P]
    one row of the time table, and the two context tensors of `UNetConditioner`. Output: `velocity`
    [B, T, 4, h, w], the v-prediction of each row. B is 1 or 2.
    """

    def __init__(
        self, unet: UNetSpatioTemporalConditionModel, frames: int, layout: ContextLayout, variant: Variant
    ) -> None:
        super().__init__()
        self.unet = unet
        self.frames = frames
        self.layout = layout
        self.variant = variant
        for _, model in transformers(unet):
            # Filled by `unet_weights`: constants that depend on the weights alone.
            model.register_parameter("frame_embedding", nn.Parameter(torch.zeros(frames, model.in_channels)))
            model.register_parameter("spatial_share", nn.Parameter(torch.zeros(1)))
        for _, gate in gates(unet):
            gate.value, gate.gate = (nn.Linear(gate.proj.in_features, gate.proj.out_features // 2) for _ in range(2))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return ("latents", "conditioning", "time", *context_names(self.layout))

    def forward(
        self, latents: Tensor, conditioning: Tensor, time: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """See the class."""
        unet, frames = self.unet, self.frames
        dtype = unet.conv_in.weight.dtype
        rows = latents.expand(conditioning.shape[0], -1, -1, -1, -1)
        x = torch.cat([rows, conditioning], dim=2).flatten(0, 1).to(dtype)
        height, width = x.shape[-2:]
        times = _Slices(time.to(dtype))
        packed = [_Slices(first.to(dtype)), _Slices(second.to(dtype))]

        # The packed order is module order: down blocks, up blocks, mid block, as diffusers registers them.
        slices: dict[int, Any] = {}
        for _, block in res_blocks(unet):
            channels = block.spatial_res_block.out_channels
            slices[id(block)] = (times.take(channels), times.take(channels))
        for _, model in transformers(unet):
            slices[id(model)] = [
                tuple(self._take_context(packed, model.inner_dim)) for _ in model.transformer_blocks
            ]

        def res(x: Tensor, block: Any) -> Tensor:
            return res_block(x, block, frames, self.variant, *slices[id(block)])

        def attend(x: Tensor, model: Any) -> Tensor:
            return self._transformer(x, model, slices[id(model)])

        x = unet.conv_in(x)
        skips = [x]
        for down in unet.down_blocks:
            for block, model in _with_attentions(down):
                x = res(x, block)
                x = x if model is None else attend(x, model)
                skips.append(x)
            if down.downsamplers is not None:
                x = down.downsamplers[0].conv(x)
                skips.append(x)

        x = res(x, unet.mid_block.resnets[0])
        for model, block in zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True):
            x = res(attend(x, model), block)

        for up in unet.up_blocks:
            for block, model in _with_attentions(up):
                x = res(torch.cat([x, skips.pop()], dim=1), block)
                x = x if model is None else attend(x, model)
            if up.upsamplers is not None:
                x = up.upsamplers[0].conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

        x = unet.conv_out(F.silu(group_norm(x, unet.conv_norm_out, self.variant)))
        return x.reshape(-1, frames, x.shape[1], height, width).float()

    def _take_context(self, packed: list[_Slices], width: int) -> Iterator[Any]:
        if self.layout == "sequence":
            keys, values = packed
            for _ in ("spatial", "temporal"):
                yield keys.take(width), values.take(width)
        else:
            for source in packed:
                yield source.take(width)

    def _cross(self, x: Tensor, block: Any, context: Any) -> Tensor:
        """Adds cross-attention to x [B, T, HW, C] (the self-attention's output bias is in the constant)."""
        if self.layout != "sequence":
            return x + context  # [B, T, 1, C] or [B, 1, 1, C]
        x = x + block.attn1.to_out[0].bias
        q = block.attn2.to_q(block.norm2(x)).flatten(1, 2)
        out = block.attn2.to_out[0](attention(q, *context, block.attn2.heads, self.variant))
        return x + out.reshape(x.shape)

    def _transformer(self, x: Tensor, model: Any, contexts: list[Any]) -> Tensor:
        frames, (channels, height, width) = self.frames, x.shape[1:]
        residual = x
        h = group_norm(x, model.norm, self.variant).flatten(2).transpose(1, 2)
        h = linear(h, model.proj_in)  # [BT, HW, C]
        inner = h.shape[-1]
        pairs = zip(model.transformer_blocks, model.temporal_transformer_blocks, contexts, strict=True)
        for block, temporal_block, (spatial, temporal) in pairs:
            if self.layout != "sequence":
                spatial, temporal = spatial[:, :, None], temporal[:, None, None]
            h = h + self_attention(block.norm1(h), block.attn1, self.variant, bias=False)
            h = self._cross(h.reshape(-1, frames, height * width, inner), block, spatial)
            h = h + feed_forward(block.norm3(h), block.ff)

            m = h + model.frame_embedding[None, :, None]
            m = m + feed_forward(temporal_block.norm_in(m), temporal_block.ff_in)
            m = m + self._temporal_attention(temporal_block.norm1(m), temporal_block.attn1)
            m = self._cross(m, temporal_block, temporal)
            m = m + feed_forward(temporal_block.norm3(m), temporal_block.ff)
            h = m + model.spatial_share * (h - m)
            h = h.reshape(-1, height * width, inner)
        h = linear(h, model.proj_out)
        return h.transpose(1, 2).reshape(-1, channels, height, width) + residual

    def _temporal_attention(self, x: Tensor, attn: Any) -> Tensor:
        """Self-attention over the frames of x [B, T, HW, C], without the output bias."""
        _, frames, pixels, channels = x.shape
        dim = channels // attn.heads

        def split(y: Tensor) -> Tensor:  # [B * HW, heads, T, dim]
            y = y.reshape(-1, frames, pixels, attn.heads, dim)
            return y.permute(0, 2, 3, 1, 4).reshape(-1, attn.heads, frames, dim)

        q, k, v = split(attn.to_q(x)), split(attn.to_k(x)), split(attn.to_v(x))
        if self.variant.attention == "native":
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = torch.softmax((q * dim**-0.5) @ k.transpose(-1, -2), dim=-1) @ v
        out = out.reshape(-1, pixels, attn.heads, frames, dim).permute(0, 3, 1, 2, 4)
        return F.linear(out.reshape(-1, frames, pixels, channels), attn.to_out[0].weight)


def _with_attentions(block: Any) -> Iterator[tuple[Any, Any]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return zip(block.resnets, attentions, strict=True)


def unet_weights(weights: Weights, unet: UNetSpatioTemporalConditionModel, frames: int) -> Weights:
    """The checkpoint's tensors plus those that `UNetStep` derives from them, under `unet.`-prefixed names."""
    derived: dict[str, Callable[[], Tensor]] = {}
    for name, _ in res_blocks(unet):
        derived.update(fold_mixing(weights, name, sign=-1.0))
    for name, model in transformers(unet):
        derived[f"{name}.frame_embedding"] = _frame_embedding(weights, name, model.in_channels, frames)
        derived[f"{name}.spatial_share"] = _sigmoid(weights, f"{name}.time_mixer.mix_factor")
    for name, _ in gates(unet):
        for kind in ("weight", "bias"):
            derived[f"{name}.value.{kind}"] = _half_of(weights, f"{name}.proj.{kind}", 0)
            derived[f"{name}.gate.{kind}"] = _half_of(weights, f"{name}.proj.{kind}", 1)
    return weights.with_derived(derived).prefixed("unet.")


def fold_mixing(weights: Weights, block: str, *, sign: float) -> dict[str, Callable[[], Tensor]]:
    """The last temporal convolution of a `SpatioTemporalResBlock`, times the share that the mixer gives it.

    Args:
        sign: -1 where the share is 1 - sigmoid(mix_factor) (U-Net), +1 where it is sigmoid(mix_factor) (VAE,
            `switch_spatial_to_temporal_mix`).
    """
    conv = f"{block}.temporal_res_block.conv2"

    def scaled(name: str) -> Callable[[], Tensor]:
        return lambda: weights[name] * torch.sigmoid(sign * weights[f"{block}.time_mixer.mix_factor"])

    return {name: scaled(name) for name in (f"{conv}.weight", f"{conv}.bias")}


def _half_of(weights: Weights, name: str, half: int) -> Callable[[], Tensor]:
    return lambda: weights[name].chunk(2)[half]


def _sigmoid(weights: Weights, name: str) -> Callable[[], Tensor]:
    return lambda: torch.sigmoid(weights[name])


def _frame_embedding(weights: Weights, name: str, width: int, frames: int) -> Callable[[], Tensor]:
    def compute() -> Tensor:
        x = sinusoid(torch.arange(frames, dtype=torch.float32), width)
        mlp = f"{name}.time_pos_embed"
        x = F.linear(x, weights[f"{mlp}.linear_1.weight"], weights[f"{mlp}.linear_1.bias"])
        return F.linear(F.silu(x), weights[f"{mlp}.linear_2.weight"], weights[f"{mlp}.linear_2.bias"])

    return compute
