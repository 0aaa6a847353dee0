"""The VAE of Stable Video Diffusion: a per-frame encoder, and a decoder that also uses neighbouring frames.

Both follow diffusers' `AutoencoderKLTemporalDecoder`. The encoder's graph ends at the mode of the posterior (the mean,
hence only half of `quant_conv`), not multiplied by the scaling factor; the decoder's takes latents that are already
divided by it.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ...graph.blocks import res_block, res_block_2d
from ...graph.layers import attention, conv, group_norm, linear, silu, temporal_conv, upsample
from ...graph.variants import Variant
from ...graph.weights import Weights
from ...graph.writer import Dtypes, Graph

_EPS = 1e-6
_DECODER_EPS = (1e-6, 1e-5)  # spatial, temporal


def write_encoder(
    weights: Weights, config: dict[str, Any], size: tuple[int, int], variant: Variant, *, dtypes: Dtypes
) -> Graph:
    """Writes the `vae_encoder` graph, in float32 arithmetic whatever `dtypes`, as the reference runs it.

    Input: `frames` [N, 3, H, W] in [-1, 1], plus noise. Output: `latents` [N, 4, H / f, W / f].
    """
    g = Graph("vae_encoder", weights, stored=dtypes.stored, variant=variant)
    x = g.input("frames", ("frames", 3, *size))
    x = conv(g, x, "encoder.conv_in")
    count = len(config["block_out_channels"])
    for i in range(count):
        with g.scope(f"encoder.down_blocks.{i}"):
            for j in range(config["layers_per_block"]):
                x = res_block_2d(g, x, f"encoder.down_blocks.{i}.resnets.{j}", size, _EPS)
            if i < count - 1:
                # diffusers pads this one itself, below and to the right only.
                x = conv(g, x, f"encoder.down_blocks.{i}.downsamplers.0.conv", stride=2, padding=(0, 0, 1, 1))
                size = (size[0] // 2, size[1] // 2)
    with g.scope("encoder.mid_block"):
        x = res_block_2d(g, x, "encoder.mid_block.resnets.0", size, _EPS)
        x = _attention(g, x, "encoder.mid_block.attentions.0", size)
        x = res_block_2d(g, x, "encoder.mid_block.resnets.1", size, _EPS)
    x = silu(g, group_norm(g, x, "encoder.conv_norm_out", size, _EPS))
    x = conv(g, x, "encoder.conv_out")
    channels = config["latent_channels"]

    def means(name: str) -> ir.Value:
        shape = (channels, *weights.shape(name)[1:])
        return g.derived(f"{name}[:{channels}]", shape, lambda: weights.load(name)[:channels])

    weight, bias = means("quant_conv.weight"), means("quant_conv.bias")
    g.output("latents", g.op("Conv", x, weight, bias, kernel_shape=[1, 1]), ("frames", channels, *size))
    return g


def write_decoder(
    weights: Weights, config: dict[str, Any], size: tuple[int, int], variant: Variant, *, dtypes: Dtypes
) -> Graph:
    """Writes the `vae_decoder` graph for latents of `size` (h, w).

    Input: `latents` [N, 4, h, w], N consecutive frames of one clip. Output: `frames` [N, 3, f h, f w], about [-1, 1].
    """
    g = Graph("vae_decoder", weights, *dtypes, variant)
    x = g.input("latents", ("frames", config["latent_channels"], *size))
    layers = config["layers_per_block"]

    def res(x: ir.Value, name: str) -> ir.Value:
        with g.scope(name):
            return res_block(g, x, name, -1, size, _DECODER_EPS, 1.0)

    x = conv(g, x, "decoder.conv_in")
    x = res(x, "decoder.mid_block.resnets.0")
    if layers > 1:
        # diffusers zips the later blocks with a list of one attention, so that one block runs whatever their number.
        with g.scope("decoder.mid_block.attentions.0"):
            x = _attention(g, x, "decoder.mid_block.attentions.0", size)
        x = res(x, "decoder.mid_block.resnets.1")
    count = len(config["block_out_channels"])
    for i in range(count):
        for j in range(layers + 1):
            x = res(x, f"decoder.up_blocks.{i}.resnets.{j}")
        if i < count - 1:
            with g.scope(f"decoder.up_blocks.{i}"):
                x = upsample(g, x, f"decoder.up_blocks.{i}.upsamplers.0")
            size = (size[0] * 2, size[1] * 2)
    x = silu(g, group_norm(g, x, "decoder.conv_norm_out", size, _EPS))
    x = conv(g, x, "decoder.conv_out")
    pixels = size[0] * size[1]
    x = g.op("Transpose", g.op("Reshape", x, g.constant([1, -1, 3, pixels])), perm=[0, 2, 1, 3])
    x = temporal_conv(g, x, "decoder.time_conv_out", (3, -1, pixels))
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.constant([-1, 3, *size]))
    g.output("frames", x, ("frames", 3, *size))
    return g


def _attention(g: Graph, x: ir.Value, name: str, size: tuple[int, int]) -> ir.Value:
    """Appends diffusers' `Attention` over the pixels of x [N, C, H, W]: one head, with residual."""
    channels, pixels = g.weights.shape(f"{name}.to_q.weight")[0], size[0] * size[1]
    flat = (-1, pixels, channels)
    h = group_norm(g, x, f"{name}.group_norm", size, _EPS)
    h = g.op("Transpose", g.op("Reshape", h, g.constant([-1, channels, pixels])), perm=[0, 2, 1])
    heads = (-1, 1, pixels, channels)
    q, k, v = (linear(g, h, f"{name}.to_{part}", heads) for part in "qkv")
    h = g.op("Reshape", attention(g, q, k, v, channels), g.constant(flat))
    h = g.op("Transpose", linear(g, h, f"{name}.to_out.0", flat), perm=[0, 2, 1])
    return g.op("Add", g.op("Reshape", h, g.constant([-1, channels, *size])), x)
