"""The spatio-temporal U-Net as two graphs: `unet_conditioner`, once per clip, and `unet`, once per step.

Exact restructurings (tested against diffusers' untouched `UNetSpatioTemporalConditionModel`):

* Cross-attention over a single token is `to_out(to_v(context))`, because a softmax over one key is 1. In the
  `reference` and `aligned` context layouts it therefore is one vector per row and frame (spatial) or per row
  (temporal), which the conditioner computes once; query, key and their norm disappear. The output bias of the
  self-attention just before it is added there too.
* In the `sequence` layout, the keys and values of the T tokens are computed once per clip.
* The sigmas are known in advance, so the time MLPs and every `time_emb_proj` become a table with one row per step.
* The frame position embedding depends on the weights alone and is a constant.
* The share of the temporal branch goes into the weights of that branch's last convolution.
* The temporal feed-forward and norms work per token, so only the attention itself sees [BP, heads, T, dim].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from amodal.runtime.families.diffusion_vas.config import ContextLayout

from ...graph.blocks import res_block, time_rows
from ...graph.layers import (
    attend,
    attention,
    conv,
    feed_forward,
    group_norm,
    layer_norm,
    linear,
    project_qkv,
    silu,
    transposed,
    upsample,
)
from ...graph.variants import Variant
from ...graph.weights import Weights
from ...graph.writer import Dtypes, Graph
from .unet_structure import ResBlock, Transformer, UNetStructure


def write_conditioner(
    weights: Weights, structure: UNetStructure, frames: int, layout: ContextLayout, *, dtypes: Dtypes
) -> Graph:
    """Writes the `unet_conditioner` graph, in float32 arithmetic.

    Inputs: `context` [B, T, D] the CLIP rows, `sigmas` [S], `time_ids` [3] (fps - 1, motion bucket, noise
    augmentation). Outputs: `time_table` [S, P] and the two tensors of `UNetStructure.context_shapes`. B and S are free.
    """
    g = Graph("unet_conditioner", weights, stored=dtypes.stored)
    config = structure.config
    context = g.input("context", ("rows", frames, config["cross_attention_dim"]))
    sigmas = g.input("sigmas", ("steps",))
    ids = g.input("time_ids", (3,))

    with g.scope("time"):
        # EDM's c_noise = ln(sigma) / 4, which diffusers' EulerDiscreteScheduler calls the continuous timestep.
        time = g.op("Mul", g.op("Log", sigmas), g.scalar(0.25))
        time = _sinusoid(g, time, config["block_out_channels"][0])
        width = config["addition_time_embed_dim"]
        added = g.op("Reshape", _sinusoid(g, ids, width), g.constant([1, 3 * width]))
        emb = silu(g, g.op("Add", _mlp(g, time, "time_embedding"), _mlp(g, added, "add_embedding")))
        rows = [
            linear(g, emb, f"{r.name}.{part}_res_block.time_emb_proj", (-1, r.channels))
            for r in structure.res_blocks
            for part in ("spatial", "temporal")
        ]
        g.output("time_table", g.op("Concat", *rows, axis=-1), ("steps", structure.time_width))

    shapes = structure.context_shapes(layout, frames)
    packed: dict[str, list[ir.Value]] = {name: [] for name in shapes}
    with g.scope("context"):
        # The temporal blocks see the first token of each row's clip.
        first = g.op("Gather", context, g.constant(0), axis=1)
        for _, spatial, temporal in structure.layers:
            for block, source, name in ((spatial, context, "spatial"), (temporal, first, "temporal")):
                if layout == "sequence":
                    for part, out in (("to_k", "keys"), ("to_v", "values")):
                        packed[out].append(g.op("MatMul", context, transposed(g, f"{block}.attn2.{part}.weight")))
                else:
                    value = g.op("MatMul", source, transposed(g, f"{block}.attn2.to_v.weight"))
                    value = g.op("MatMul", value, transposed(g, f"{block}.attn2.to_out.0.weight"))
                    value = g.op("Add", value, g.weight(f"{block}.attn2.to_out.0.bias"))
                    packed[name].append(g.op("Add", value, g.weight(f"{block}.attn1.to_out.0.bias")))
        for name, shape in shapes.items():
            g.output(name, g.op("Concat", *packed[name], axis=-1), shape)
    return g


def _sinusoid(g: Graph, x: ir.Value, width: int) -> ir.Value:
    angle = g.op("Mul", g.op("Unsqueeze", x, g.constant([1])), g.constant(_frequencies(width)[None], np.float32))
    return g.op("Concat", g.op("Cos", angle), g.op("Sin", angle), axis=-1)


def _frequencies(width: int) -> Tensor:
    # To the bit as diffusers computes them: at 127 radians, another order of rounding is 1e-5 of the cosine.
    return torch.exp(-math.log(10000.0) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))


def _mlp(g: Graph, x: ir.Value, name: str) -> ir.Value:
    width = g.weights.shape(f"{name}.linear_1.weight")[0]
    x = silu(g, linear(g, x, f"{name}.linear_1", (-1, width)))
    return linear(g, x, f"{name}.linear_2", (-1, g.weights.shape(f"{name}.linear_2.weight")[0]))


def write_unet(
    weights: Weights,
    structure: UNetStructure,
    frames: int,
    size: tuple[int, int],
    layout: ContextLayout,
    variant: Variant,
    *,
    dtypes: Dtypes,
) -> Graph:
    """Writes the `unet` graph: one evaluation of the denoiser.

    Inputs: `latents` [1, T, 4, h, w] already scaled by c_in, `conditioning` [B, T, 8, h, w], `time` [P] one row of
    the time table, and the two context tensors. Output: `velocity` [B, T, 4, h, w], the v-prediction of each
    CFG row. B is free (1 or 2), and h and w are multiples of `structure.downscale`.
    """
    return _UNet(Graph("unet", weights, *dtypes, variant, repeated=True), structure, frames, layout).write(size)


class _UNet:
    """A U-Net graph while it is written, with the inputs that its blocks share."""

    def __init__(self, g: Graph, structure: UNetStructure, frames: int, layout: ContextLayout) -> None:
        self.g, self.structure, self.frames, self.layout = g, structure, frames, layout
        self.times: dict[str, tuple[ir.Value, ir.Value]] = {}
        self.contexts: dict[str, tuple[ir.Value, ...]] = {}

    def write(self, size: tuple[int, int]) -> Graph:
        g, structure = self.g, self.structure
        channels_in, channels_out = g.weights.shape("conv_in.weight")[1], g.weights.shape("conv_out.weight")[0]
        shape = (1, self.frames, channels_out, *size)
        latents = g.input("latents", shape)
        conditioning = g.input("conditioning", ("rows", self.frames, channels_in - channels_out, *size))
        self._unpack_time(g.input("time", (structure.time_width,)))
        shapes = structure.context_shapes(self.layout, self.frames)
        self._unpack_context([g.input(name, shape) for name, shape in shapes.items()])

        x = self._conv_in(latents, conditioning, size)
        skips, at = [x], size
        for level in structure.down:
            for block, transformer in level.layers:
                x = self._layer(x, block, transformer, at)
                skips.append(x)
            if level.resample:
                with g.scope(level.name):
                    x = conv(g, x, f"{level.name}.downsamplers.0.conv", stride=2)
                skips.append(x)
                at = (at[0] // 2, at[1] // 2)

        for block, transformer in structure.mid.layers:
            x = self._layer(x, block, transformer, at)

        for level in structure.up:
            for block, transformer in level.layers:
                x = self._layer(g.op("Concat", x, skips.pop(), axis=1), block, transformer, at)
            if level.resample:
                with g.scope(level.name):
                    x = upsample(g, x, f"{level.name}.upsamplers.0")
                at = (at[0] * 2, at[1] * 2)

        x = conv(g, silu(g, group_norm(g, x, "conv_norm_out", at, 1e-5)), "conv_out")
        g.output("velocity", g.op("Reshape", x, g.constant([-1, *shape[1:]])), ("rows", *shape[1:]))
        return g

    def _conv_in(self, latents: ir.Value, conditioning: ir.Value, size: tuple[int, int]) -> ir.Value:
        """Appends the first convolution, of the latents [1, T, 4, h, w] beside each row's conditioning.

        Where no size is read, the latents cannot be expanded to the rows: both are convolved apart, and added.
        """
        g, name = self.g, "conv_in"
        out, width = g.weights.shape(f"{name}.weight")[:2]
        channels = g.weights.shape("conv_out.weight")[0]
        if g.variant.sizes == "read":
            rows = g.op("Shape", conditioning, start=0, end=1)
            x = g.op("Expand", latents, g.op("Concat", rows, g.constant([self.frames, channels, *size]), axis=0))
            x = g.op("Concat", x, conditioning, axis=2)
            return conv(g, g.op("Reshape", x, g.constant([-1, width, *size])), name)

        def part(x: ir.Value, first: int, last: int, *bias: ir.Value) -> ir.Value:
            def load() -> Tensor:
                return g.weights.load(f"{name}.weight")[:, first:last].contiguous()

            weight = g.derived(f"{name}.weight[:, {first}:{last}]", (out, last - first, 3, 3), load)
            x = g.op("Reshape", x, g.constant([-1, last - first, *size]))
            x = g.op("Conv", x, weight, *bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            return g.op("Reshape", x, g.constant([-1, self.frames, out, *size]))

        x = g.op("Add", part(conditioning, channels, width, g.weight(f"{name}.bias")), part(latents, 0, channels))
        return g.op("Reshape", x, g.constant([-1, out, *size]))

    def _unpack_time(self, time: ir.Value) -> None:
        blocks, parts = self.structure.res_blocks, ("spatial", "temporal")
        rows = iter(time_rows(self.g, time, [f"{r.name}.{part}_res_block.conv1" for r in blocks for part in parts]))
        for r in blocks:
            self.times[r.name] = (next(rows), next(rows))

    def _unpack_context(self, packed: Sequence[ir.Value]) -> None:
        g, layers, width = self.g, self.structure.layers, self.structure.context_width
        sequence = self.layout == "sequence"
        if not sequence:  # [BT, 1, C] for the spatial, [B, 1, 1, C] for the temporal blocks
            spatial, temporal = packed
            packed = [
                g.op("Reshape", spatial, g.constant([-1, 1, width])),
                g.op("Reshape", temporal, g.constant([-1, 1, 1, width])),
            ]
        widths = [t.channels for t, _, _ in layers for _ in range(2 if sequence else 1)]
        streams = [iter(g.ops("Split", p, g.constant(widths), outputs=len(widths), axis=-1)) for p in packed]
        for _, *names in layers:
            for name, stream in zip(names, streams, strict=True):
                self.contexts[name] = tuple(map(next, streams)) if sequence else (next(stream),)

    def _layer(self, x: ir.Value, block: ResBlock, transformer: Transformer | None, size: tuple[int, int]) -> ir.Value:
        with self.g.scope(block.name):
            eps = (block.eps, block.eps)
            x = res_block(self.g, x, block.name, self.frames, size, eps, -1.0, self.times[block.name])
        if transformer is None:
            return x
        with self.g.scope(transformer.name):
            return self._transformer(x, transformer, size)

    def _transformer(self, x: ir.Value, t: Transformer, size: tuple[int, int]) -> ir.Value:
        """diffusers' `TransformerSpatioTemporalModel` of x [BT, C, H, W]."""
        g, frames, pixels, channels = self.g, self.frames, size[0] * size[1], t.channels
        flat, clip = (-1, pixels, channels), (-1, frames, pixels, channels)
        h = group_norm(g, x, f"{t.name}.norm", size, 1e-6)
        h = g.op("Transpose", g.op("Reshape", h, g.constant([-1, channels, pixels])), perm=[0, 2, 1])
        h = linear(g, h, f"{t.name}.proj_in", flat)  # [BT, P, C]
        for i in range(t.layers):
            spatial, temporal = (f"{t.name}.{part}transformer_blocks.{i}" for part in ("", "temporal_"))
            h = self._attend(h, spatial, t, flat)
            h = g.op("Add", h, self._ff(h, spatial, "norm3", "ff", flat))

            h = g.op("Reshape", h, g.constant(clip))
            m = g.op("Add", h, self._frame_embedding(t))
            m = g.op("Add", m, self._ff(m, temporal, "norm_in", "ff_in", clip))
            m = self._attend(m, temporal, t, clip)
            m = g.op("Add", m, self._ff(m, temporal, "norm3", "ff", clip))
            # share * spatial + (1 - share) * temporal
            h = g.op("Add", m, g.op("Mul", g.op("Sub", h, m), self._spatial_share(t)))
            h = g.op("Reshape", h, g.constant(flat))
        h = linear(g, h, f"{t.name}.proj_out", flat)
        h = g.op("Reshape", g.op("Transpose", h, perm=[0, 2, 1]), g.constant([-1, channels, *size]))
        return g.op("Add", h, x)

    def _ff(self, x: ir.Value, block: str, norm: str, name: str, shape: Sequence[int]) -> ir.Value:
        return feed_forward(self.g, layer_norm(self.g, x, f"{block}.{norm}"), f"{block}.{name}", shape)

    def _attend(self, x: ir.Value, block: str, t: Transformer, shape: tuple[int, ...]) -> ir.Value:
        """Adds self-attention and cross-attention to x: [BT, P, C] over space, or [B, T, P, C] over time."""
        g, pixels = self.g, shape[-2]
        h = layer_norm(g, x, f"{block}.norm1")
        if len(shape) == 3:
            q, k, v = project_qkv(g, h, f"{block}.attn1")
            out = attend(g, q, k, v, t.heads, (pixels, pixels), shape)
        else:
            out = self._attend_over_time(h, f"{block}.attn1", t, shape)
        out = g.op("MatMul", out, transposed(g, f"{block}.attn1.to_out.0.weight"))
        if self.layout != "sequence":
            # The constant includes the self-attention's output bias.
            return g.op("Add", g.op("Add", out, self.contexts[block][0]), x)
        x = g.op("Add", g.op("Add", out, g.weight(f"{block}.attn1.to_out.0.bias")), x)
        # Every query of a row attends to the same T tokens whatever its frame, so that frames can be merged.
        query = g.op("MatMul", layer_norm(g, x, f"{block}.norm2"), transposed(g, f"{block}.attn2.to_q.weight"))
        tokens = (pixels * self.frames, self.frames)
        keys, values = self.contexts[block]
        out = attend(g, query, keys, values, t.heads, tokens, shape)
        return g.op("Add", linear(g, out, f"{block}.attn2.to_out.0", shape), x)

    def _attend_over_time(self, x: ir.Value, name: str, t: Transformer, shape: tuple[int, ...]) -> ir.Value:
        """Appends the self-attention of x [B, T, P, C] among the frames of each pixel, without its last projection."""
        g, frames, pixels, dim = self.g, self.frames, shape[-2], t.channels // t.heads
        if g.variant.attention == "tokens":
            q, k, v = project_qkv(g, g.op("Transpose", x, perm=[0, 2, 1, 3]), name)
            out = attend(g, q, k, v, t.heads, (frames, frames), (-1, pixels, frames, t.channels))
            return g.op("Transpose", out, perm=[0, 2, 1, 3])
        query, key, value = (self._split_over_time(part, pixels, t.heads, dim) for part in project_qkv(g, x, name))
        out = attention(g, query, key, value, dim)  # [BP, heads, T, dim]
        out = g.op("Reshape", out, g.constant([-1, pixels, t.heads, frames, dim]))
        return g.op("Reshape", g.op("Transpose", out, perm=[0, 3, 1, 2, 4]), g.constant(shape))

    def _split_over_time(self, x: ir.Value, pixels: int, heads: int, dim: int) -> ir.Value:
        g, frames = self.g, self.frames
        x = g.op("Reshape", x, g.constant([-1, frames, pixels, heads, dim]))
        return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 3, 1, 4]), g.constant([-1, heads, frames, dim]))

    def _frame_embedding(self, t: Transformer) -> ir.Value:
        weights, frames = self.g.weights, self.frames

        def load() -> Tensor:
            angle = torch.arange(frames, dtype=torch.float32)[:, None] * _frequencies(t.channels)
            x = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
            for i, name in enumerate(f"{t.name}.time_pos_embed.linear_{n}" for n in (1, 2)):
                x = F.linear(F.silu(x) if i else x, weights.load(f"{name}.weight"), weights.load(f"{name}.bias"))
            return x[:, None]

        return self.g.derived(f"{t.name}.frame_embedding", (frames, 1, t.channels), load)

    def _spatial_share(self, t: Transformer) -> ir.Value:
        name = f"{t.name}.time_mixer.mix_factor"
        return self.g.derived(f"{t.name}.spatial_share", (1,), lambda: torch.sigmoid(self.g.weights.load(name)))
