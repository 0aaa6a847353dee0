"""Depth Anything V2 as a graph: a DINOv2 ViT, tapped at four blocks, and the DPT head that fuses the taps.

It follows transformers' `DepthAnythingForDepthEstimation`, with the authors' position rule. Two restructurings are
exact: layer scales are multiplied into the linears before them, and a refinement's 1x1 convolution runs before its
upsampling, on a quarter of the pixels (bilinear weights sum to one, so that the two commute, bias included).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from torch import Tensor

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.depth import DEPTH_MULTIPLE

from ..graph.layers import add_class_token, conv, layer_norm, linear, self_attention
from ..graph.variants import Variant
from ..graph.weights import Weight, Weights
from ..graph.writer import Dtypes, Graph
from .checkpoint import current_name
from .network import DepthNetwork, interpolate_positions

Size = tuple[int, int]

_EMBEDDINGS = "backbone.embeddings"
_EPS = 1e-6  # DINOv2's norms
_MLP_RATIO = 4
_FACTORS = (4, 2, 1, 0.5)  # resolution of the four maps, in patches (config: `reassemble_factors`)
_SCALED = {"attention.o_proj": "layer_scale1.lambda1", "mlp.fc2": "layer_scale2.lambda1"}


def write_depth(network: DepthNetwork, size: Size, variant: Variant, *, dtypes: Dtypes) -> Graph:
    """Writes the `depth` graph; the network's weights are read when it is saved.

    Input: `pixels` [N, 3, h, w] from `amodal.runtime.pictures.depth.prepare_depth_input`. Output: `depth` [N, h, w],
    >= 0, nearer is larger; of a metric network, distances.

    Raises:
        InputError: h or w is not a multiple of 14.
    """
    if min(size) < DEPTH_MULTIPLE or any(side % DEPTH_MULTIPLE for side in size):
        raise InputError(f"Depth input of {size[0]}x{size[1]}: expected multiples of {DEPTH_MULTIPLE}.")
    g = Graph("depth", _weights(network), *dtypes, variant)
    grid = (size[0] // DEPTH_MULTIPLE, size[1] // DEPTH_MULTIPLE)

    taps = _backbone(g, g.input("pixels", ("frames", 3, *size)), network, grid)
    *finer, x = (_reassemble(g, tap, i) for i, tap in enumerate(taps))
    at = (-(-grid[0] // 2), -(-grid[1] // 2))  # a convolution of stride 2 made the coarsest map
    for step in range(4):  # refinement, coarsest map first; each step ends at the next finer map's size
        name = f"neck.fusion_stage.layers.{step}"
        with g.scope(name):
            if step:
                x = g.op("Add", x, _residual(g, finer.pop(), f"{name}.residual_layer1"))
            x = _residual(g, x, f"{name}.residual_layer2")
            finer_size = (2**step * grid[0], 2**step * grid[1])
            x, at = _resize(g, conv(g, x, f"{name}.projection"), at, finer_size), finer_size

    with g.scope("head"):
        x = _resize(g, conv(g, x, "head.conv1"), at, size)
        x = g.op("Relu", conv(g, x, "head.conv2"))
        x = conv(g, x, "head.conv3")
        if network.kind == "relative":
            x = g.op("Relu", x)
        else:
            x = g.op("Mul", g.op("Sigmoid", x), g.scalar(network.module.config.max_depth))
        g.output("depth", g.op("Squeeze", x, g.constant([1])), ("frames", *size))
    return g


def _backbone(g: Graph, x: ir.Value, network: DepthNetwork, grid: Size) -> Sequence[ir.Value]:
    """Appends DINOv2 of pixels [N, 3, h, w]; returns each tap's normalised tokens as a map [N, C, rows, columns]."""
    width, heads, tokens = network.variant.width, network.variant.heads, grid[0] * grid[1] + 1
    shape, hidden = (-1, tokens, width), (-1, _MLP_RATIO * width)
    with g.scope("embeddings"):
        name = f"{_EMBEDDINGS}.patch_embeddings.projection"
        x = conv(g, x, name, stride=DEPTH_MULTIPLE, padding=(0, 0, 0, 0))
        x = g.op("Transpose", g.op("Reshape", x, g.constant([-1, width, tokens - 1])), perm=[0, 2, 1])
        token, table = f"{_EMBEDDINGS}.cls_token", f"{_EMBEDDINGS}.position_embeddings"
        label, at = f"{table}:{grid[0]}x{grid[1]}", (1, tokens, width)
        x = add_class_token(g, x, token, label, lambda: interpolate_positions(g.weights.load(table), grid), at)

    taps = []
    for i in range(max(network.variant.taps) + 1):
        name = f"backbone.encoder.layer.{i}"
        with g.scope(name):
            h = layer_norm(g, x, f"{name}.norm1", _EPS)
            x = g.op("Add", x, self_attention(g, h, f"{name}.attention", "o_proj", heads, shape))
            h = layer_norm(g, x, f"{name}.norm2", _EPS)
            h = g.op("Gelu", linear(g, h, f"{name}.mlp.fc1", hidden))
            x = g.op("Add", x, linear(g, h, f"{name}.mlp.fc2", shape))
            if i in network.variant.taps:
                # Without the class token.
                h = g.op("Slice", x, g.constant([1]), g.constant([tokens]), g.constant([1]))
                h = g.op("Transpose", layer_norm(g, h, "backbone.layernorm", _EPS), perm=[0, 2, 1])
                taps.append(g.op("Reshape", h, g.constant([-1, width, *grid])))
    return taps


def _reassemble(g: Graph, x: ir.Value, index: int) -> ir.Value:
    """Brings a tap [N, C, rows, columns] to its own resolution and the refinements' number of channels."""
    name, factor = f"neck.reassemble_stage.layers.{index}", _FACTORS[index]
    with g.scope(name):
        x = conv(g, x, f"{name}.projection")
        if factor > 1:
            weight, bias = (g.weight(f"{name}.resize.{part}") for part in ("weight", "bias"))
            square = [int(factor)] * 2
            x = g.op("ConvTranspose", x, weight, bias, kernel_shape=square, strides=square)
        elif factor < 1:
            x = conv(g, x, f"{name}.resize", stride=2)
        kernel = g.weight(f"neck.convs.{index}.weight")  # without a bias
        return g.op("Conv", x, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def _residual(g: Graph, x: ir.Value, name: str) -> ir.Value:
    """Appends DPT's residual unit, activations first."""
    h = conv(g, g.op("Relu", x), f"{name}.convolution1")
    return g.op("Add", conv(g, g.op("Relu", h), f"{name}.convolution2"), x)


def _resize(g: Graph, x: ir.Value, before: Size, after: Size) -> ir.Value:
    """Appends bilinear resizing with aligned corners of maps [N, C, *before].

    Where sizes are read, the free N is taken from x: with `axes`, which would leave N out, TensorRT for RTX 1.7 reads
    its -1 as a size.
    """
    modes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    if g.variant.sizes == "known":
        # Sizes are rounded down from these, so that they must not be a rounding error too small.
        scales = [np.nextafter(np.float32(b / a), np.float32(np.inf)) for a, b in zip(before, after, strict=True)]
        return g.op("Resize", x, None, g.constant([1.0, 1.0, *scales], np.float32), **modes)
    sizes = g.op("Concat", g.op("Shape", x, start=0, end=2), g.constant(after), axis=0)
    return g.op("Resize", x, None, None, sizes, **modes)


def _weights(network: DepthNetwork) -> Weights:
    """Returns the network's tensors, uncopied, by transformers 5's names, with layer scales inside the linears."""
    state: dict[str, Tensor] = {current_name(n): t for n, t in network.module.state_dict().items()}

    def loader(name: str, tensor: Tensor) -> Callable[[], Tensor]:
        for layer, scale in _SCALED.items():
            block, found, _ = name.partition(f"{layer}.")
            if found:
                factor = state[block + scale].reshape(-1, *[1] * (tensor.ndim - 1))
                return lambda: tensor.float() * factor.float()
        return lambda: tensor

    return Weights({n: Weight(tuple(t.shape), loader(n, t)) for n, t in state.items()}, network.source)
