"""Layers of Stable Video Diffusion's networks as ONNX operators.

Each function appends one layer to a `Graph`, reading its weights under the name that the layer has in diffusers'
modules. Nothing here approximates; where several forms compute the same, the graph's `Variant` chooses.

In shapes, B is CFG rows, T frames, C channels, H and W those of the feature map, and P = H * W; `[BT, C, H, W]` is
frames flattened into the batch, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from .writer import FLOAT, Graph

GROUPS = 32  # diffusers' SVD networks never use another number of groups
# Values of a map up to which a norm that is run again and again gets a weight for each of them, and is one kernel, not
# three; beyond, as in norms over time, the weights would take memory like activations.
_PER_VALUE = 2**21


def conv(
    g: Graph,
    x: ir.Value,
    name: str,
    *,
    stride: int = 1,
    padding: Sequence[int] | None = None,
    scale: Callable[[], Tensor] | None = None,
    bias: ir.Value | None = None,
) -> ir.Value:
    """Appends a convolution of any rank.

    Args:
        padding: as ONNX `pads`; half the kernel on every side by default.
        scale: factor on weights and bias, applied when they are stored.
        bias: [C'], instead of the layer's own.
    """
    kernel = g.weights.shape(f"{name}.weight")[2:]
    pads = list(padding) if padding is not None else [k // 2 for k in kernel] * 2
    weight = _scaled(g, f"{name}.weight", scale)
    bias = _scaled(g, f"{name}.bias", scale) if bias is None else bias
    return g.op("Conv", x, weight, bias, kernel_shape=list(kernel), strides=[stride] * len(kernel), pads=pads)


def _scaled(g: Graph, name: str, scale: Callable[[], Tensor] | None) -> ir.Value:
    if scale is None:
        return g.weight(name)
    return g.derived(name, g.weights.shape(name), lambda: g.weights.load(name) * scale())


def linear(g: Graph, x: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
    """Appends a linear layer with a bias over the last axis of x; the first axis of the result's `shape` may be -1.

    It is one Gemm over all rows, bias included: a MatMul over more than two axes would need an Add, which reads and
    writes all of it once more.
    """
    out, width = g.weights.shape(f"{name}.weight")
    flat = g.op("Reshape", x, g.constant([-1, width]))
    flat = g.op("Gemm", flat, transposed(g, f"{name}.weight"), g.weight(f"{name}.bias"))
    return flat if tuple(shape) == (-1, out) else g.op("Reshape", flat, g.constant(shape))


def transposed(g: Graph, name: str, rows: slice | None = None) -> ir.Value:
    """Returns a linear layer's weight [out, in], or some of its output rows, as MatMul reads it: [in, out]."""
    out, width = g.weights.shape(name)
    label, count = (name, out) if rows is None else (f"{name}[{rows.start}:{rows.stop}]", rows.stop - rows.start)
    return g.derived(label, (width, count), lambda: g.weights.load(name)[rows or slice(None)].t().contiguous())


def silu(g: Graph, x: ir.Value) -> ir.Value:
    """Appends x * sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def _in_float32(g: Graph, kind: str, x: ir.Value, *inputs: ir.Value, **attributes: Any) -> ir.Value:
    if g.compute == FLOAT:
        return g.op(kind, x, *inputs, **attributes)
    return g.op("Cast", g.op(kind, g.op("Cast", x, to=FLOAT), *inputs, **attributes), to=g.compute)


def layer_norm(g: Graph, x: ir.Value, name: str, eps: float = 1e-5) -> ir.Value:
    """Appends layer normalisation over the last axis, with statistics in float32 (ONNX's `stash_type` 1)."""
    scale, bias = g.weight(f"{name}.weight"), g.weight(f"{name}.bias")
    return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps, stash_type=1)


def group_norm(g: Graph, x: ir.Value, name: str, rest: Sequence[int], eps: float) -> ir.Value:
    """Appends group normalisation of x [N, C, *rest]; statistics in float32. An axis of `rest` may be -1 if N is 1."""
    channels = g.weights.shape(f"{name}.weight")[0]
    if g.variant.group_norm == "native":
        scale, bias = g.weight(f"{name}.weight"), g.weight(f"{name}.bias")
        return g.op("GroupNormalization", x, scale, bias, num_groups=GROUPS, epsilon=eps, stash_type=1)
    count, size = (1, -1) if -1 in rest else (-1, channels // GROUPS * math.prod(rest))
    x = g.op("Reshape", x, g.constant([count, GROUPS, size]))
    if g.variant.group_norm == "layer":
        if g.repeated and 0 < size * GROUPS <= _PER_VALUE:
            scale, bias = (_per_value(g, f"{name}.{part}", math.prod(rest)) for part in ("weight", "bias"))
            x = g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps, stash_type=1)
            return g.op("Reshape", x, g.constant([count, channels, *rest]))
        length = g.op("Shape", x, start=2) if size < 0 else g.constant([size])
        x = g.op("LayerNormalization", x, g.ones(length), axis=-1, epsilon=eps, stash_type=1)
        x = g.op("Reshape", x, g.constant([count, channels, *rest]))
        weight, bias = (_per_channel(g, f"{name}.{part}", len(rest)) for part in ("weight", "bias"))
        return g.op("Add", g.op("Mul", x, weight), bias)
    ones, zeros = g.constant([1.0] * GROUPS, np.float32), g.constant([0.0] * GROUPS, np.float32)
    x = _in_float32(g, "InstanceNormalization", x, ones, zeros, epsilon=eps)
    x = g.op("Reshape", x, g.constant([count, channels, *rest]))
    # The affine part as a depthwise 1x1 convolution: one pass over memory where Mul and Add are two.
    kernel = (channels, 1, *(1 for _ in rest))
    weight = g.derived(f"{name}.kernel", kernel, lambda: g.weights.load(f"{name}.weight").reshape(kernel))
    return g.op("Conv", x, weight, g.weight(f"{name}.bias"), kernel_shape=[1] * len(rest), group=channels)


def _per_value(g: Graph, name: str, count: int) -> ir.Value:
    """Returns a vector of the checkpoint [C] as [1, groups, values], each element `count` times.

    ONNX Runtime expands it when it loads, so that the file does not hold the copies.
    """
    channels = g.weights.shape(name)[0]
    shape = (GROUPS, channels // GROUPS, 1)
    x = g.derived(f"{name}{list(shape)}", shape, lambda: g.weights.load(name).reshape(shape))
    x = g.op("Expand", x, g.constant([*shape[:2], count]))
    return g.op("Reshape", x, g.constant([1, GROUPS, channels // GROUPS * count]))


def _per_channel(g: Graph, name: str, rest: int) -> ir.Value:
    """Returns a vector of the checkpoint [C] as [C, 1, ...], with `rest` axes after the channels."""
    shape = (*g.weights.shape(name), *(1 for _ in range(rest)))
    return g.derived(f"{name}{list(shape)}", shape, lambda: g.weights.load(name).reshape(shape))


def attention(g: Graph, q: ir.Value, k: ir.Value, v: ir.Value, dim: int) -> ir.Value:
    """Appends softmax attention of q [N, heads, L, dim] over k, v [N, heads, S, dim].

    Only in the `decomposed` form, the softmax is in float32: TensorRT for RTX 1.7 refuses Attention's
    `softmax_precision`.
    """
    if g.variant.attention != "decomposed":
        return g.op("Attention", q, k, v, scale=dim**-0.5)
    q = g.op("Mul", q, g.scalar(dim**-0.5))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    return g.op("MatMul", _in_float32(g, "Softmax", scores, axis=-1), v)


def split_heads(g: Graph, x: ir.Value, tokens: int, heads: int, dim: int) -> ir.Value:
    """Turns x [N, tokens, heads * dim] into [N, heads, tokens, dim]."""
    return g.op("Transpose", g.op("Reshape", x, g.constant([-1, tokens, heads, dim])), perm=[0, 2, 1, 3])


def join_heads(g: Graph, x: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Turns x [N, heads, tokens, dim] into `shape`, a form of [N, tokens, heads * dim]."""
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.constant(shape))


def attend(
    g: Graph, q: ir.Value, k: ir.Value, v: ir.Value, heads: int, tokens: tuple[int, int], shape: Sequence[int]
) -> ir.Value:
    """Appends attention with several heads of q over k and v.

    Args:
        q, k, v: forms of [N, tokens, C], with `tokens` of q, and of k and v.
        shape: of the result, a form of q's.
    """
    width, counts = shape[-1], (tokens[0], tokens[1], tokens[1])
    if g.variant.attention == "tokens":
        q, k, v = (g.op("Reshape", x, g.constant([-1, n, width])) for x, n in zip((q, k, v), counts, strict=True))
        alike = {"q_num_heads": heads, "kv_num_heads": heads, "scale": (width // heads) ** -0.5}
        return g.op("Reshape", g.op("Attention", q, k, v, **alike), g.constant(shape))
    q, k, v = (split_heads(g, x, n, heads, width // heads) for x, n in zip((q, k, v), counts, strict=True))
    return join_heads(g, attention(g, q, k, v, width // heads), shape)


def add_class_token(
    g: Graph, x: ir.Value, token: str, table: str, positions: Callable[[], Tensor], shape: Sequence[int]
) -> ir.Value:
    """Puts the class token before a vision transformer's tokens x [N, P, C], and adds the position embedding.

    Args:
        table: label of the position embedding, which `positions` loads; it has `shape`, a form of [1 + P, C].
    """
    if g.variant.sizes == "known":

        def load() -> Tensor:
            first, others = g.weights.load(token).reshape(1, -1), torch.zeros(shape[-2] - 1, shape[-1])
            return torch.cat([first, others]) + positions()

        x = g.op("Pad", x, g.constant([0, 1, 0, 0, 0, 0]))  # a row of zeros before each picture's tokens
        return g.op("Add", x, g.derived(f"{table} + {token}", shape, load))
    first = g.derived(token, (1, 1, shape[-1]), lambda: g.weights.load(token).reshape(1, 1, -1))
    rows = g.op("Concat", g.op("Shape", x, start=0, end=1), g.constant([1, shape[-1]]), axis=0)
    x = g.op("Concat", g.op("Expand", first, rows), x, axis=1)
    return g.op("Add", x, g.derived(table, shape, positions))


def self_attention(g: Graph, x: ir.Value, name: str, out: str, heads: int, shape: tuple[int, int, int]) -> ir.Value:
    """Appends a vision transformer's attention among the tokens of x; its projections have biases.

    Args:
        name: layer with the projections `q_proj`, `k_proj` and `v_proj`, and `out` for the result.
        shape: of x and of the result: -1, tokens, width.
    """
    q, k, v = (linear(g, x, f"{name}.{p}_proj", shape) for p in "qkv")
    return linear(g, attend(g, q, k, v, heads, (shape[1], shape[1]), shape), f"{name}.{out}", shape)


def project_qkv(g: Graph, x: ir.Value, name: str) -> Sequence[ir.Value]:
    """Appends the projections of a bias-free attention; returns query, key and value, each [..., C]."""
    names = [f"{name}.to_{part}.weight" for part in "qkv"]
    if g.variant.qkv == "split":
        return [g.op("MatMul", x, transposed(g, n)) for n in names]
    out, width = g.weights.shape(names[0])

    def load() -> Tensor:
        return torch.cat([g.weights.load(n) for n in names]).t().contiguous()

    weight = g.derived(f"{name}.to_qkv.weight", (width, 3 * out), load)
    return g.ops("Split", g.op("MatMul", x, weight), g.constant([out] * 3), outputs=3, axis=-1)


def feed_forward(g: Graph, x: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
    """Appends diffusers' GEGLU feed-forward of x [..., C], `(value * gelu(gate)) W + b`, with a result of `shape`."""
    proj, out = f"{name}.net.0.proj", f"{name}.net.2"
    double, width = g.weights.shape(f"{proj}.weight")
    half = double // 2
    flat = g.op("Reshape", x, g.constant([-1, width]))
    if g.variant.gates == "split":

        def project(rows: slice) -> ir.Value:
            weight, label = transposed(g, f"{proj}.weight", rows), f"{proj}.bias[{rows.start}:{rows.stop}]"
            bias = g.derived(label, (half,), lambda: g.weights.load(f"{proj}.bias")[rows].contiguous())
            return g.op("Gemm", flat, weight, bias)

        value, gate = project(slice(0, half)), project(slice(half, double))
    else:
        value, gate = g.ops("Split", linear(g, flat, proj, (-1, double)), g.constant([half, half]), outputs=2, axis=-1)
    return linear(g, g.op("Mul", value, g.op("Gelu", gate)), out, shape)


def temporal_conv(
    g: Graph,
    x: ir.Value,
    name: str,
    shape: Sequence[int],
    scale: Callable[[], Tensor] | None = None,
    bias: ir.Value | None = None,
) -> ir.Value:
    """Appends a (3, 1, 1) convolution over time of x [B, C, T, P].

    Args:
        shape: (C, T, P) of the result; T may be -1 if B is 1.
        scale, bias: as in `conv`.
    """
    out, width = g.weights.shape(f"{name}.weight")[:2]
    if g.variant.temporal_conv == "conv3d":
        clips = 1 if -1 in shape else -1
        x = g.op("Reshape", x, g.constant([clips, width, *shape[1:], 1]))
        return g.op("Reshape", conv(g, x, name, scale=scale, bias=bias), g.constant([clips, *shape]))

    def load() -> Tensor:
        weight = g.weights.load(f"{name}.weight").squeeze(-1)
        return weight if scale is None else weight * scale()

    weight = g.derived(f"{name}.weight", (out, width, 3, 1), load)
    bias = _scaled(g, f"{name}.bias", scale) if bias is None else bias
    return g.op("Conv", x, weight, bias, kernel_shape=[3, 1], strides=[1, 1], pads=[1, 0, 1, 0])


def upsample(g: Graph, x: ir.Value, name: str) -> ir.Value:
    """Appends nearest-neighbour doubling of x [N, C, H, W] and the 3x3 convolution `<name>.conv`.

    Each output pixel depends on 2x2 pixels of the small picture, with the kernel's rows and columns summed in one of
    two ways each; `phases` computes these four convolutions and interleaves them, at 4/9 of the arithmetic.
    """
    if g.variant.upsample == "resize":
        scales, modes = g.constant([1.0, 1.0, 2.0, 2.0], np.float32), {"coordinate_transformation_mode": "asymmetric"}
        x = g.op("Resize", x, None, scales, mode="nearest", **modes, nearest_mode="floor")
        return conv(g, x, f"{name}.conv")
    out, width = g.weights.shape(f"{name}.conv.weight")[:2]

    def kernel(row: int, column: int) -> Tensor:
        return _summed(_summed(g.weights.load(f"{name}.conv.weight"), 2, row), 3, column)

    bias = g.weight(f"{name}.conv.bias")
    phases = []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = g.derived(f"{name}.conv.weight[{row}{column}]", (out, width, 2, 2), partial(kernel, row, column))
        pads = [1 - row, 1 - column, row, column]
        phases.append(g.op("Conv", x, weight, bias, kernel_shape=[2, 2], strides=[1, 1], pads=pads))
    return g.op("DepthToSpace", g.op("Concat", *phases, axis=1), blocksize=2, mode="DCR")


def _summed(kernel: Tensor, axis: int, phase: int) -> Tensor:
    """Turns three taps over a doubled signal into two over the signal: (a, b + c) at even places, (a + b, c) at odd."""
    a, b, c = kernel.unbind(axis)
    return torch.stack([a, b + c] if phase == 0 else [a + b, c], dim=axis)
