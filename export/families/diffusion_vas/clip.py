"""The CLIP image encoder: transformers' `CLIPVisionModelWithProjection`, ViT-H/14 in Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from amodal.runtime.errors import CheckpointError

from ...graph.layers import add_class_token, layer_norm, linear, self_attention, silu, transposed
from ...graph.variants import Variant
from ...graph.weights import Weights
from ...graph.writer import Dtypes, Graph

_EMBEDDINGS = "vision_model.embeddings"


def write_image_encoder(weights: Weights, config: dict[str, Any], variant: Variant, *, dtypes: Dtypes) -> Graph:
    """Writes the `image_encoder` graph.

    Input: `pixels` [N, 3, S, S], normalised with CLIP's mean and deviation. Output: `embeddings` [N, D].

    Raises:
        CheckpointError: unknown activation.
    """
    g = Graph("image_encoder", weights, *dtypes, variant)
    width, heads, side, patch = (config[k] for k in ("hidden_size", "num_attention_heads", "image_size", "patch_size"))
    eps, tokens = config.get("layer_norm_eps", 1e-5), (side // patch) ** 2 + 1
    shape = (-1, tokens, width)

    x = g.input("pixels", ("frames", 3, side, side))
    with g.scope("embeddings"):
        kernel = g.weight(f"{_EMBEDDINGS}.patch_embedding.weight")
        x = g.op("Conv", x, kernel, kernel_shape=[patch, patch], strides=[patch, patch])
        x = g.op("Transpose", g.op("Reshape", x, g.constant([-1, width, tokens - 1])), perm=[0, 2, 1])
        token, table = f"{_EMBEDDINGS}.class_embedding", f"{_EMBEDDINGS}.position_embedding.weight"
        x = add_class_token(g, x, token, table, lambda: weights.load(table), (tokens, width))
        x = layer_norm(g, x, "vision_model.pre_layrnorm", eps)  # sic

    for i in range(config["num_hidden_layers"]):
        name = f"vision_model.encoder.layers.{i}"
        with g.scope(name):
            h = layer_norm(g, x, f"{name}.layer_norm1", eps)
            x = g.op("Add", x, self_attention(g, h, f"{name}.self_attn", "out_proj", heads, shape))
            h = layer_norm(g, x, f"{name}.layer_norm2", eps)
            h = linear(g, h, f"{name}.mlp.fc1", (-1, config["intermediate_size"]))
            h = _activate(g, h, config.get("hidden_act", "quick_gelu"))
            x = g.op("Add", x, linear(g, h, f"{name}.mlp.fc2", shape))

    x = g.op("Gather", x, g.constant(0), axis=1)
    x = layer_norm(g, x, "vision_model.post_layernorm", eps)
    x = g.op("MatMul", x, transposed(g, "visual_projection.weight"))
    g.output("embeddings", x, ("frames", config["projection_dim"]))
    return g


def _activate(g: Graph, x: ir.Value, name: str) -> ir.Value:
    if name == "gelu":
        return g.op("Gelu", x)
    if name == "quick_gelu":
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.scalar(1.702))))
    if name in ("silu", "swish"):
        return silu(g, x)
    raise CheckpointError(
        f"the image encoder's config names the activation {name!r}; known are gelu, quick_gelu, silu."
    )
