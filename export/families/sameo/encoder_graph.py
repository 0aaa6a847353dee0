"""SAMEO's image encoder as a graph, with what the decoder needs of an image whatever the prompt is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from torch import Tensor
from torch.nn import functional as F

from ...graph.layers import attend, attention, conv, layer_norm, linear, split_heads, transposed
from ...graph.variants import Variant
from ...graph.weights import Weights
from ...graph.writer import FLOAT, Dtypes, Graph
from .islands import narrowed, widened
from .network import dense_code, interpolate_positions
from .sizes import NetworkConfig

_EPSILON = 1e-6
_SCORES = 1 << 23  # most attention scores at once on a CPU, where they stay in memory: 32 MB in float32
_TOGETHER = 16  # patches in one product on a CPU
_LAYER = "mask_decoder.transformer.layers.0.cross_attn_token_to_image"


def write_image_encoder(
    weights: Weights,
    config: NetworkConfig,
    mean: Sequence[float],
    std: Sequence[float],
    variant: Variant,
    dtypes: Dtypes,
) -> Graph:
    """Writes the `image_encoder` graph.

    Input: `pixels` [pictures, 3, height, width], RGB in [0, 1]; the graph normalises it. Outputs: `embedding`
    [pictures, embed, rows, columns], and the decoder's first projections of the image, which no prompt changes: `keys`
    [pictures, decoder_heads, dim, cells] and `values` [pictures, decoder_heads, cells, dim].

    Args:
        weights: by the names of the state of `Sameo`.
        mean, std: of RGB in [0, 1].
    """
    g = Graph("image_encoder", weights, *dtypes, variant)
    (rows, columns), width, embed = config.grid, config.dim, config.embed
    cells = rows * columns
    x = g.input("pixels", ("pictures", 3, config.height, config.width), FLOAT)
    x = _patches(g, x, config, mean, std)
    for i in range(config.depth):
        name = f"image_encoder.blocks.{i}"
        with g.scope(name):
            h = layer_norm(g, x, f"{name}.norm1", _EPSILON)
            x = g.op("Add", x, _self_attention(g, h, f"{name}.attn", config.heads, (-1, cells, width)))
            h = layer_norm(g, x, f"{name}.norm2", _EPSILON)
            h = g.op("Gelu", linear(g, h, f"{name}.mlp.fc1", (-1, 4 * width)))
            x = g.op("Add", x, linear(g, h, f"{name}.mlp.fc2", (-1, cells, width)))
    with g.scope("neck"):
        name = "image_encoder.neck"
        narrow = g.derived(f"{name}.0.weight", (width, embed), lambda: weights.load(f"{name}.0.weight")[:, :, 0, 0].t())
        x = layer_norm(g, g.op("MatMul", x, narrow), f"{name}.1", _EPSILON)
        x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1]), g.constant([-1, embed, rows, columns]))
        x = g.op("Conv", x, g.weight(f"{name}.2.weight"), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = g.op("Transpose", g.op("Reshape", x, g.constant([-1, embed, cells])), perm=[0, 2, 1])
        x = layer_norm(g, x, f"{name}.3", _EPSILON)
        embedding = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1]), g.constant([-1, embed, rows, columns]))
    # The decoder's first attention is the most sensitive to rounding, its code of places above all.
    x = widened(g, x)
    with g.scope("projections"), g.in_float32():
        heads, inner = config.decoder_heads, embed // 2
        # W (x + code) + b is W x, and a constant for each cell.
        keys = g.op("Add", g.op("MatMul", x, transposed(g, f"{_LAYER}.k_proj.weight")), _code_keys(g, config))
        values = linear(g, x, f"{_LAYER}.v_proj", (-1, cells, inner))
        keys = g.op("Transpose", split_heads(g, keys, cells, heads, inner // heads), perm=[0, 1, 3, 2])
        values = split_heads(g, values, cells, heads, inner // heads)
    g.output("embedding", embedding, ("pictures", embed, rows, columns))
    g.output("keys", keys, ("pictures", heads, inner // heads, cells))
    g.output("values", values, ("pictures", heads, cells, inner // heads))
    return g


def _patches(g: Graph, x: ir.Value, config: NetworkConfig, mean: Sequence[float], std: Sequence[float]) -> ir.Value:
    """Appends normalisation, patch embedding and position embedding; returns tokens [pictures, cells, dim]."""
    name, (rows, columns) = "image_encoder.patch_embed.proj", config.grid

    def positions() -> Tensor:
        return interpolate_positions(g.weights.load("image_encoder.pos_embed"), config)

    with g.scope("patches"):
        # Folding these into the convolution doubled its rounding error, which attention makes visible.
        shift, scale = (g.constant(np.reshape(each, (1, 3, 1, 1)), np.float32) for each in (mean, std))
        x = narrowed(g, g.op("Div", g.op("Sub", x, shift), scale))
        if g.variant.name == "cpu" and columns % _TOGETHER == 0:
            x = _patch_products(g, x, name, config)
        else:
            x = conv(g, x, name, stride=config.patch, padding=(0, 0, 0, 0))
            x = g.op("Reshape", x, g.constant([-1, config.dim, rows * columns]))
            x = g.op("Transpose", x, perm=[0, 2, 1])
        table = g.derived(f"image_encoder.pos_embed {rows}x{columns}", (1, rows * columns, config.dim), positions)
        return g.op("Add", x, table)


def _patch_products(g: Graph, x: ir.Value, name: str, config: NetworkConfig) -> ir.Value:
    """Appends the patch embedding of pixels as products of patches; returns [pictures, cells, dim].

    Of up to sixteen columns, ONNX Runtime's product sums the terms one after the other, here in the order of torch's
    convolution (rows, columns, channels). Both then round alike: against the authors' code, the embedding of the small
    recorded case is nearer than an exact convolution would be, whose difference the attention after it multiplies.
    """
    (rows, columns), patch, dim = config.grid, config.patch, config.dim
    across, terms = columns // _TOGETHER, 3 * patch * patch

    def load() -> Tensor:
        return g.weights.load(f"{name}.weight").permute(0, 2, 3, 1).reshape(dim, terms, 1)

    x = g.op("Reshape", x, g.constant([-1, 3, rows, patch, across, _TOGETHER, patch]))
    x = g.op("Transpose", x, perm=[0, 2, 4, 3, 6, 1, 5])  # [pictures, rows, across, row, column, channel, _TOGETHER]
    x = g.op("Reshape", x, g.constant([-1, terms, _TOGETHER]))
    weight = g.derived(f"{name}.weight as products", (dim, terms, 1), load)
    x = g.op("Conv", x, weight, g.weight(f"{name}.bias"), kernel_shape=[1])
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1]), g.constant([-1, rows * columns, dim]))


def _self_attention(g: Graph, x: ir.Value, name: str, heads: int, shape: tuple[int, int, int]) -> ir.Value:
    """Appends a block's attention among tokens x of `shape`: -1, tokens, width."""
    _, tokens, width = shape
    q, k, v = (_rows(g, x, f"{name}.qkv", slice(i * width, (i + 1) * width), shape) for i in range(3))
    pieces = 1
    while g.variant.name == "cpu" and heads * tokens * tokens // pieces > _SCORES and tokens % (2 * pieces) == 0:
        pieces *= 2
    if pieces == 1:
        return linear(g, attend(g, q, k, v, heads, (tokens, tokens), shape), f"{name}.proj", shape)
    # Only some of the queries at once, so that their scores are a piece of the whole matrix.
    q, k, v = (split_heads(g, each, tokens, heads, width // heads) for each in (q, k, v))
    parts = g.ops("Split", q, g.constant([tokens // pieces] * pieces), outputs=pieces, axis=2)
    x = g.op("Concat", *(attention(g, part, k, v, width // heads) for part in parts), axis=2)
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.constant(shape))
    return linear(g, x, f"{name}.proj", shape)


def _rows(g: Graph, x: ir.Value, name: str, rows: slice, shape: Sequence[int]) -> ir.Value:
    """Appends some output rows of a linear layer; the result has `shape`."""
    out, width = rows.stop - rows.start, g.weights.shape(f"{name}.weight")[1]
    label = f"{name}.bias[{rows.start}:{rows.stop}]"
    bias = g.derived(label, (out,), lambda: g.weights.load(f"{name}.bias")[rows].contiguous())
    flat = g.op("Reshape", x, g.constant([-1, width]))
    return g.op("Reshape", g.op("Gemm", flat, transposed(g, f"{name}.weight", rows), bias), g.constant(shape))


def _code_keys(g: Graph, config: NetworkConfig) -> ir.Value:
    """Returns the part of the keys that comes from the places of the cells, [1, cells, inner]."""
    (rows, columns), inner = config.grid, config.embed // 2

    def load() -> Tensor:
        code = dense_code(g.weights.load("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"), config.grid)
        return F.linear(code, g.weights.load(f"{_LAYER}.k_proj.weight"), g.weights.load(f"{_LAYER}.k_proj.bias"))[None]

    return g.derived(f"{_LAYER}.k_proj of {rows}x{columns} places", (1, rows * columns, inner), load)
