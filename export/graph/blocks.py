"""Residual blocks of Stable Video Diffusion's networks, and the time embeddings that they add.

Shapes are named as in `layers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from .layers import conv, group_norm, silu, temporal_conv
from .writer import Graph


def time_rows(g: Graph, time: ir.Value, convs: Sequence[str]) -> Sequence[ir.Value]:
    """Splits one row of the time table [P] into the parts that residual blocks take, one for each of their `convs`.

    Each is [1, C, 1, 1], or if `time` is `bias`, [C] with the bias of its convolution included.
    """
    widths = [g.weights.shape(f"{name}.bias")[0] for name in convs]
    if g.variant.time == "added":
        row = g.op("Reshape", time, g.constant([1, sum(widths), 1, 1]))
        return g.ops("Split", row, g.constant(widths), outputs=len(widths), axis=1)

    def load() -> Tensor:
        return torch.cat([g.weights.load(f"{name}.bias") for name in convs])

    row = g.op("Add", time, g.derived("biases before the time embeddings", (sum(widths),), load))
    return g.ops("Split", row, g.constant(widths), outputs=len(widths), axis=0)


def _time_of(g: Graph, time: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """Returns the bias of the first convolution, None for its own, and what is added after it, None for nothing."""
    return (time, None) if g.variant.time == "bias" else (None, time)


def res_block_2d(
    g: Graph, x: ir.Value, name: str, size: tuple[int, int], eps: float, time: ir.Value | None = None
) -> ir.Value:
    """Appends diffusers' `ResnetBlock2D` of x [N, C, H, W]; `time` is from `time_rows`."""
    bias, added = _time_of(g, time)
    h = conv(g, silu(g, group_norm(g, x, f"{name}.norm1", size, eps)), f"{name}.conv1", bias=bias)
    h = h if added is None else g.op("Add", h, added)
    h = conv(g, silu(g, group_norm(g, h, f"{name}.norm2", size, eps)), f"{name}.conv2")
    if f"{name}.conv_shortcut.weight" in g.weights:
        x = conv(g, x, f"{name}.conv_shortcut")
    return g.op("Add", x, h)


def res_block(
    g: Graph,
    x: ir.Value,
    name: str,
    frames: int,
    size: tuple[int, int],
    eps: tuple[float, float],
    share_sign: float,
    time: tuple[ir.Value, ir.Value] | None = None,
) -> ir.Value:
    """Appends diffusers' `SpatioTemporalResBlock` of x [BT, C, H, W].

    The mix `a * s + (1 - a) * (s + f(s))` of the spatial result s and the temporal branch is `s + (1 - a) * f(s)`,
    and the factor goes into the branch's last convolution.

    Args:
        frames: T, or -1 where one clip's frames are the batch (VAE decoder, B = 1).
        eps: of the spatial and of the temporal norms.
        share_sign: sign of `mix_factor` inside the sigmoid that gives the temporal share: -1 in the U-Net (share
            1 - sigmoid(m)), +1 in the VAE (`switch_spatial_to_temporal_mix`).
        time: from `time_rows`, for the spatial and the temporal part.
    """
    spatial, temporal = f"{name}.spatial_res_block", f"{name}.temporal_res_block"
    channels = g.weights.shape(f"{temporal}.conv2.weight")[0]
    pixels = size[0] * size[1]
    x = res_block_2d(g, x, spatial, size, eps[0], time and time[0])

    def share() -> Tensor:
        return torch.sigmoid(share_sign * g.weights.load(f"{name}.time_mixer.mix_factor"))

    clip = [-1, frames] if frames > 0 else [1, -1]
    x = g.op("Reshape", x, g.constant([*clip, channels, pixels]))
    x = g.op("Transpose", x, perm=[0, 2, 1, 3])  # [B, C, T, P]
    h, shape = x, (channels, frames, pixels)
    bias, added = _time_of(g, time and time[1])
    h = silu(g, group_norm(g, h, f"{temporal}.norm1", (frames, pixels), eps[1]))
    h = temporal_conv(g, h, f"{temporal}.conv1", shape, bias=bias)
    h = h if added is None else g.op("Add", h, added)
    h = silu(g, group_norm(g, h, f"{temporal}.norm2", (frames, pixels), eps[1]))
    h = temporal_conv(g, h, f"{temporal}.conv2", shape, share)
    x = g.op("Transpose", g.op("Add", x, h), perm=[0, 2, 1, 3])
    return g.op("Reshape", x, g.constant([-1, channels, *size]))
