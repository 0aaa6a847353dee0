"""Building blocks of Stable Video Diffusion's networks, restructured for graphs.

The functions here run diffusers' own parameter holders (`SpatioTemporalResBlock`, `Attention`, ...) but not their
forward methods: shapes are static except for the leading batch, everything that is constant over a clip or over
the steps comes in from outside, and the operators are the ones that compile best. What changes is algebra only;
the tests hold every block against the untouched module.

Shapes: B CFG rows, T frames, C channels, H and W of the feature map; `[BT, C, H, W]` is frames flattened into the
batch, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Variant:
    """How a graph is written where several forms compute the same; recorded in the manifest.

    Attributes:
        attention: `native` emits ONNX Attention (opset 23), `decomposed` MatMul, Softmax, MatMul.
        group_norm: `native` emits GroupNormalization (opset 21), `instance` InstanceNormalization over the groups,
            which ONNX Runtime's CPU provider runs as one kernel.
        temporal_conv: `conv2d` runs a (3, 1, 1) convolution as (3, 1) over [B, C, T, HW]; `conv3d` leaves it.
    """

    attention: Literal["native", "decomposed"] = "native"
    group_norm: Literal["native", "instance"] = "native"
    temporal_conv: Literal["conv2d", "conv3d"] = "conv2d"


def group_norm(x: Tensor, norm: nn.GroupNorm, variant: Variant) -> Tensor:
    """Group normalisation of [N, C, ...] over `norm.num_groups` groups."""
    if variant.group_norm == "native":
        return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    n, c, rest = x.shape[0], x.shape[1], x.shape[2:]
    grouped = x.reshape(-1, norm.num_groups, c // norm.num_groups * rest.numel())
    grouped = F.instance_norm(grouped, eps=norm.eps)
    affine = (1, c) + (1,) * len(rest)
    del n
    return grouped.reshape(-1, c, *rest) * norm.weight.reshape(affine) + norm.bias.reshape(affine)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, variant: Variant) -> Tensor:
    """Softmax attention of q [N, L, C] over k, v [N, S, C] with `heads` heads; returns [N, L, C]."""
    length, channels = q.shape[1], q.shape[2]
    dim = channels // heads

    def split(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1], heads, dim).transpose(1, 2)

    q, k, v = split(q), split(k), split(v)
    if variant.attention == "native":
        out = F.scaled_dot_product_attention(q, k, v)
    else:
        out = torch.softmax((q * dim**-0.5) @ k.transpose(-1, -2), dim=-1) @ v
    return out.transpose(1, 2).reshape(-1, length, channels)


def self_attention(x: Tensor, attn: Any, variant: Variant, *, bias: bool = True) -> Tensor:
    """diffusers' `Attention` over x [N, L, C] itself, without the residual.

    Args:
        bias: False leaves out `to_out`'s bias, which the caller has folded into a constant it adds anyway.
    """
    out = attention(attn.to_q(x), attn.to_k(x), attn.to_v(x), attn.heads, variant)
    return F.linear(out, attn.to_out[0].weight, attn.to_out[0].bias if bias else None)


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer over the last axis, as one Gemm: with the bias inside, unlike a MatMul of more than two axes."""
    out: Tensor = layer(x.reshape(-1, x.shape[-1]))
    return out.reshape(-1, *x.shape[1:-1], out.shape[-1])


def feed_forward(x: Tensor, ff: Any) -> Tensor:
    """diffusers' `FeedForward` with GEGLU: value * gelu(gate), proj.

    `split_gates` has cut the input projection in two, which saves a copy of both halves.
    """
    flat = x.reshape(-1, x.shape[-1])
    out: Tensor = ff.net[2](ff.net[0].value(flat) * F.gelu(ff.net[0].gate(flat)))
    return out.reshape(-1, *x.shape[1:-1], out.shape[-1])


def temporal_conv(x: Tensor, conv: nn.Conv3d, variant: Variant) -> Tensor:
    """A (3, 1, 1) convolution over time of x [B, C, T, P], where P are the pixels H*W."""
    if variant.temporal_conv == "conv2d":
        return F.conv2d(x, conv.weight.squeeze(-1), conv.bias, padding=(1, 0))
    return F.conv3d(x[..., None], conv.weight, conv.bias, padding=(1, 0, 0))[..., 0]


def res_block(
    x: Tensor,
    block: Any,
    frames: int,
    variant: Variant,
    spatial_time: Tensor | None = None,
    temporal_time: Tensor | None = None,
) -> Tensor:
    """diffusers' `SpatioTemporalResBlock` of x [BT, C, H, W].

    The mix `a * spatial + (1 - a) * (spatial + f(spatial))` is `spatial + (1 - a) * f(spatial)`; `fold_mixing` has
    put the factor into the last temporal convolution.

    Args:
        spatial_time, temporal_time: [C], the rows that `time_emb_proj` would give for this step, or None (VAE).
    """
    spatial, temporal = block.spatial_res_block, block.temporal_res_block
    h = spatial.conv1(F.silu(group_norm(x, spatial.norm1, variant)))
    if spatial_time is not None:
        h = h + spatial_time.reshape(1, -1, 1, 1)
    h = spatial.conv2(F.silu(group_norm(h, spatial.norm2, variant)))
    x = (x if spatial.conv_shortcut is None else spatial.conv_shortcut(x)) + h

    channels, height, width = x.shape[1:]
    x = x.reshape(-1, frames, channels, height * width).transpose(1, 2)  # [B, C, T, HW]
    h = temporal_conv(F.silu(group_norm(x, temporal.norm1, variant)), temporal.conv1, variant)
    if temporal_time is not None:
        h = h + temporal_time.reshape(1, -1, 1, 1)
    h = temporal_conv(F.silu(group_norm(h, temporal.norm2, variant)), temporal.conv2, variant)
    return (x + h).transpose(1, 2).reshape(-1, channels, height, width)
