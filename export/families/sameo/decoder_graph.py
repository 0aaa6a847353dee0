"""SAMEO's prompt encoder and mask decoder as one graph, for any number of boxes on one image.

Three restructurings are exact, and save a third of the arithmetic per box:

- Attention between the few tokens and the many cells never projects the cells. With the image x and its code c, the
  scores of a head, q (W (x + c) + b), are (q W) (x + c), up to a term that is the same for all cells, which a softmax
  ignores; and its result is (p x) W' + b', with p the softmax. Likewise the other way round.
- Transposed convolutions of kernel and stride 2 are linear maps of a cell to its four quarters, and stay in that order;
  only the four masks are put into rows and columns in the end.
- Keys and values of the first attention to the image come from the encoder's graph: no prompt changes them.

In shapes, N is boxes, H heads, t tokens, d channels of a head, E channels of tokens and image, C cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ...graph.layers import layer_norm, linear, split_heads
from ...graph.variants import Variant
from ...graph.weights import Weights
from ...graph.writer import FLOAT, Dtypes, Graph
from .islands import narrowed, widened
from .network import dense_code
from .sizes import NetworkConfig

MASKS = 4
_EPSILON = 1e-5
_PROMPTS = "prompt_encoder"
_DECODER = "mask_decoder"
_MATRIX = f"{_PROMPTS}.pe_layer.positional_encoding_gaussian_matrix"
_KINDS = {-1: "invalid_points", 1: "point_embeddings", 2: "bbox_top_left_embeddings", 3: "bbox_bottom_right_embeddings"}

_Across = Callable[[ir.Value, str], ir.Value]
"""Appends attention of tokens to an image, by the layer's name."""


def write_mask_decoder(weights: Weights, config: NetworkConfig, variant: Variant, dtypes: Dtypes) -> Graph:
    """Writes the `mask_decoder` graph.

    Inputs: `embedding`, `keys` and `values` of one picture, as the encoder's graph gives them; `prompts` [boxes, slots,
    2], points (x, y) in pixels of the encoder's input, -1 in empty slots; `labels` [boxes, slots] as
    `PromptEncoder.forward` takes them. Outputs: `logits` [boxes, 4, 4 x rows, 4 x columns] and `iou` [boxes, 4]; mask 0
    is the single answer.

    Args:
        weights: by the names of the state of `Sameo`.
    """
    g = Graph("mask_decoder", weights, *dtypes, variant)
    return _Writer(g, config).write()


class _Writer:
    def __init__(self, g: Graph, config: NetworkConfig) -> None:
        self.g, self.config = g, config
        self.heads, self.embed = config.decoder_heads, config.embed
        self.inner, self.tokens = config.embed // 2, 1 + MASKS + config.slots
        self.cells = config.grid[0] * config.grid[1]

    def write(self) -> Graph:
        g, config, embed, head = self.g, self.config, self.embed, self.inner // self.heads
        embedding = g.input("embedding", (1, embed, *config.grid))
        # In float32: half precision loses fractions of pixels, and the first attention magnifies its rounding.
        keys = g.input("keys", (1, self.heads, head, self.cells), FLOAT)
        values = g.input("values", (1, self.heads, self.cells, head), FLOAT)
        points = g.input("prompts", ("boxes", config.slots, 2), FLOAT)
        labels = g.input("labels", ("boxes", config.slots), FLOAT)
        with g.scope("prompts"), g.in_float32():
            code = self._tokens(points, labels)
        with g.scope("image"):
            image = g.op("Transpose", g.op("Reshape", embedding, g.constant([1, embed, self.cells])), perm=[0, 2, 1])
        with g.scope("layers.0"):
            with g.in_float32():
                tokens = self._asked(0, code, code, lambda asking, name: self._to_shared(asking, (keys, values), name))
            tokens, code = narrowed(g, tokens), narrowed(g, code)
            tokens, image = self._told(0, tokens, code, image)
        with g.scope("layers.1"):
            asked = image
            tokens = g.op("Add", tokens, code)
            tokens = self._asked(1, tokens, code, lambda asking, name: self._to_image(asking, asked, name))
            tokens, image = self._told(1, tokens, code, image)
        name = f"{_DECODER}.transformer"
        with g.scope("final"):
            h = self._to_image(g.op("Add", tokens, code), image, f"{name}.final_attn_token_to_image")
            tokens = layer_norm(g, g.op("Add", tokens, h), f"{name}.norm_final_attn", _EPSILON)
        with g.scope("heads"):
            by_token = g.op("Transpose", tokens, perm=[1, 0, 2])
            own, masks, _ = g.ops("Split", by_token, g.constant([1, MASKS, config.slots]), outputs=3, axis=0)
            iou = self._mlp(own, f"{_DECODER}.iou_prediction_head", (-1, MASKS))
            weights = self._mask_weights(masks)
        with g.scope("upscaling"):
            logits = self._masks(image, weights)
        g.output("logits", logits, ("boxes", MASKS, *config.low_size))
        g.output("iou", iou, ("boxes", MASKS))
        return g

    def _tokens(self, points: ir.Value, labels: ir.Value) -> ir.Value:
        """Appends the tokens [N, t, E]: the decoder's own, then the prompt's."""
        g, config, slots = self.g, self.config, self.config.slots
        # In the order of `fourier_code`: folded into one map, large angles would come from cancelling terms.
        x = g.op("Add", points, g.constant(0.5, np.float32))
        x = g.op("Div", x, g.constant([config.width, config.height], np.float32))
        x = g.op("Sub", g.op("Mul", x, g.constant(2, np.float32)), g.constant(1, np.float32))
        x = g.op("MatMul", x, g.constant(g.weights.load(_MATRIX).numpy(), np.float32))
        angles = g.op("Mul", x, g.constant(2 * math.pi, np.float32))
        code = g.op("Concat", g.op("Sin", angles), g.op("Cos", angles), axis=-1)
        labels = g.op("Reshape", labels, g.constant([-1, slots, 1]))
        known = g.constant(list(_KINDS), np.float32)
        chosen = g.op("Cast", g.op("Equal", labels, known), to=FLOAT)
        kinds = self._stacked(
            "kinds of points", [f"{_PROMPTS}.{name}.weight" for name in _KINDS.values()], squeeze=True
        )
        prompt = g.op("Add", code, g.op("MatMul", chosen, kinds))
        names = [f"{_DECODER}.iou_token.weight", f"{_DECODER}.mask_tokens.weight"]

        def own() -> Tensor:
            return torch.cat([*(g.weights.load(name) for name in names), torch.zeros(slots, self.embed)])[None]

        # Rows of zeros before the prompt's, to which the decoder's own tokens are added.
        padded = g.op("Pad", prompt, g.constant([0, 1 + MASKS, 0, 0, 0, 0]))
        return g.op("Add", padded, g.derived("own tokens", (1, self.tokens, self.embed), own))

    def _asked(self, index: int, tokens: ir.Value, code: ir.Value, across: _Across) -> ir.Value:
        """Appends the first half of a layer: attention among tokens [N, t, E], and of tokens to the image."""
        g, name = self.g, f"{_DECODER}.transformer.layers.{index}"
        h = self._among_tokens(tokens, f"{name}.self_attn")
        tokens = layer_norm(g, g.op("Add", tokens, h), f"{name}.norm1", _EPSILON)
        h = across(g.op("Add", tokens, code), f"{name}.cross_attn_token_to_image")
        return layer_norm(g, g.op("Add", tokens, h), f"{name}.norm2", _EPSILON)

    def _told(self, index: int, tokens: ir.Value, code: ir.Value, image: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Appends the second half: the MLP, and attention of the image; returns tokens [N, t, E], image [N, C, E]."""
        g, name = self.g, f"{_DECODER}.transformer.layers.{index}"
        h = g.op("Gelu", linear(g, tokens, f"{name}.mlp.layers.0.0", (-1, self.config.decoder_mlp)))
        h = linear(g, h, f"{name}.mlp.fc", (-1, self.tokens, self.embed))
        tokens = layer_norm(g, g.op("Add", tokens, h), f"{name}.norm3", _EPSILON)
        h = self._to_tokens(image, g.op("Add", tokens, code), tokens, f"{name}.cross_attn_image_to_token")
        return tokens, layer_norm(g, g.op("Add", image, h), f"{name}.norm4", _EPSILON)

    # Attention

    def _among_tokens(self, x: ir.Value, name: str) -> ir.Value:
        g, head = self.g, self.embed // self.heads
        q, k, v = (self._split(x, f"{name}.{part}_proj", head) for part in "qkv")
        scores = g.op("MatMul", g.op("Mul", q, g.scalar(head**-0.5)), g.op("Transpose", k, perm=[0, 1, 3, 2]))
        return self._joined(g.op("MatMul", self._softmax(scores), v), name)

    def _to_shared(self, x: ir.Value, shared: tuple[ir.Value, ir.Value], name: str) -> ir.Value:
        """Appends attention of tokens to keys [1, H, d, C] and values [1, H, C, d] that all boxes share.

        The tokens of all boxes are queries of one attention, because a softmax is taken for each query.
        """
        g, head = self.g, self.inner // self.heads
        keys, values = shared
        q = linear(g, x, f"{name}.q_proj", (-1, self.heads, head))
        q = g.op("Mul", g.op("Transpose", q, perm=[1, 0, 2]), g.scalar(head**-0.5))  # [H, N x t, d]
        scores = g.op("MatMul", q, g.op("Squeeze", keys, g.constant([0])))
        found = g.op("MatMul", self._softmax(scores), g.op("Squeeze", values, g.constant([0])))
        found = g.op("Reshape", g.op("Transpose", found, perm=[1, 0, 2]), g.constant([-1, self.inner]))
        return linear(g, found, f"{name}.out_proj", (-1, self.tokens, self.embed))

    def _to_image(self, x: ir.Value, image: ir.Value, name: str) -> ir.Value:
        """Appends attention of tokens to each box's own image [N, C, E]; returns [N, t, E]."""
        g, head, count = self.g, self.inner // self.heads, self.heads * self.tokens
        q = g.op("Mul", self._split(x, f"{name}.q_proj", head), g.scalar(head**-0.5))
        keys = self._by_head(f"{name}.k_proj", lambda weight: weight)  # [H, d, E]
        q = g.op("Reshape", g.op("MatMul", q, keys), g.constant([-1, count, self.embed]))
        located = g.op("Add", image, self._places())
        scores = g.op("MatMul", q, g.op("Transpose", located, perm=[0, 2, 1]))
        found = g.op("MatMul", self._softmax(scores), image)  # [N, H x t, E]
        found = g.op("Reshape", found, g.constant([-1, self.heads, self.tokens, self.embed]))
        values = self._by_head(f"{name}.v_proj", lambda weight: weight.transpose(1, 2))  # [H, E, d]
        bias = f"{name}.v_proj.bias"
        shape = (self.heads, 1, head)
        offset = g.derived(f"{bias} by head", shape, lambda: g.weights.load(bias).reshape(shape))
        return self._joined(g.op("Add", g.op("MatMul", found, values), offset), name)

    def _to_tokens(self, image: ir.Value, keys: ir.Value, values: ir.Value, name: str) -> ir.Value:
        """Appends attention of the image [N or 1, C, E] to each box's tokens; returns [N, C, E]."""
        g, head, count = self.g, self.inner // self.heads, self.heads * self.tokens
        k = g.op("Mul", self._split(keys, f"{name}.k_proj", head), g.scalar(head**-0.5))
        v = self._split(values, f"{name}.v_proj", head)
        asked = g.op("MatMul", k, self._by_head(f"{name}.q_proj", lambda weight: weight))
        asked = g.op("Reshape", asked, g.constant([-1, count, self.embed]))
        bias = f"{name}.q_proj.bias"
        shape = (self.heads, head, 1)
        offset = g.derived(f"{bias} by head", shape, lambda: g.weights.load(bias).reshape(shape))
        offset = g.op("Reshape", g.op("MatMul", k, offset), g.constant([-1, 1, count]))
        located = g.op("Add", image, self._places())
        scores = g.op("Add", g.op("MatMul", located, g.op("Transpose", asked, perm=[0, 2, 1])), offset)
        scores = g.op("Reshape", scores, g.constant([-1, self.cells, self.heads, self.tokens]))
        shares = g.op("Reshape", self._softmax(scores), g.constant([-1, self.cells, count]))
        out = f"{name}.out_proj.weight"

        def load() -> Tensor:
            return g.weights.load(out).t().reshape(self.heads, head, self.embed)

        told = g.op("MatMul", v, g.derived(f"{out} by head", (self.heads, head, self.embed), load))
        told = g.op("Reshape", told, g.constant([-1, count, self.embed]))
        return g.op("Add", g.op("MatMul", shares, told), g.weight(f"{name}.out_proj.bias"))

    def _split(self, x: ir.Value, name: str, head: int) -> ir.Value:
        """Appends a projection of tokens; returns [N, H, t, d]."""
        x = linear(self.g, x, name, (-1, self.tokens, self.heads * head))
        return split_heads(self.g, x, self.tokens, self.heads, head)

    def _joined(self, x: ir.Value, name: str) -> ir.Value:
        """Appends the last projection of x [N, H, t, d]; returns [N, t, E]."""
        x = self.g.op("Transpose", x, perm=[0, 2, 1, 3])
        return linear(self.g, x, f"{name}.out_proj", (-1, self.tokens, self.embed))

    def _softmax(self, x: ir.Value) -> ir.Value:
        return narrowed(self.g, self.g.op("Softmax", widened(self.g, x), axis=-1))

    def _by_head(self, name: str, turn: Callable[[Tensor], Tensor]) -> ir.Value:
        """Returns a projection's weight, [H, d, E] as stored, turned."""
        g, head = self.g, self.inner // self.heads
        stored = torch.empty(self.heads, head, self.embed, device="meta")
        shape = tuple(turn(stored).shape)
        return g.derived(
            f"{name}.weight by head",
            shape,
            lambda: turn(g.weights.load(f"{name}.weight").reshape(self.heads, head, self.embed)),
        )

    def _places(self) -> ir.Value:
        """Returns the code of the cells, [1, C, E]."""
        g, grid = self.g, self.config.grid

        def load() -> Tensor:
            return dense_code(g.weights.load(_MATRIX), grid)[None]

        with g.in_float32():
            code = g.derived(f"code of {grid[0]}x{grid[1]} places", (1, self.cells, self.embed), load)
        return narrowed(g, code)

    # Heads

    def _mlp(self, x: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
        g = self.g
        for i in range(2):
            width = g.weights.shape(f"{name}.layers.{i}.0.weight")[0]
            x = g.op("Gelu", linear(g, x, f"{name}.layers.{i}.0", (-1, width)))
        return linear(g, x, f"{name}.fc", shape)

    def _mask_weights(self, x: ir.Value) -> ir.Value:
        """Appends the four masks' MLPs at once, of tokens [4, N, E]; returns [N, last, 4]."""
        g, name = self.g, f"{_DECODER}.output_hypernetworks_mlps"
        for i, layer in enumerate(("layers.0.0", "layers.1.0", "fc")):
            weight = self._stacked(layer, [f"{name}.{m}.{layer}.weight" for m in range(MASKS)], turned=True)
            bias = self._stacked(f"{layer} biases", [f"{name}.{m}.{layer}.bias" for m in range(MASKS)])
            x = g.op("Add", g.op("MatMul", x, weight), g.op("Unsqueeze", bias, g.constant([1])))
            x = g.op("Gelu", x) if i < 2 else x
        return g.op("Transpose", x, perm=[1, 2, 0])

    def _masks(self, image: ir.Value, weights: ir.Value) -> ir.Value:
        """Appends upscaling of the image [N, C, E] and the masks; returns [N, 4, 4 x rows, 4 x columns]."""
        g, (rows, columns), (middle, last) = self.g, self.config.grid, self.config.upscaling
        name = f"{_DECODER}.final_output_upscaling_layers"
        x = self._quarters(image, f"{name}.0.0")
        x = self._norm(x, middle, f"{name}.0.1")
        x = g.op("Reshape", g.op("Gelu", x), g.constant([-1, middle]))
        x = g.op("Gelu", self._quarters(x, f"{name}.1.0"))
        x = g.op("MatMul", g.op("Reshape", x, g.constant([-1, 16 * self.cells, last])), weights)
        x = g.op("Reshape", x, g.constant([-1, rows, columns, 2, 2, 2, 2, MASKS]))
        x = g.op("Transpose", x, perm=[0, 7, 1, 3, 5, 2, 4, 6])
        return g.op("Reshape", x, g.constant([-1, MASKS, 4 * rows, 4 * columns]))

    def _quarters(self, x: ir.Value, name: str) -> ir.Value:
        """Appends a transposed convolution of x [..., in]; returns [rows of x, 4 x out], quarters row by row."""
        g = self.g
        width, out = g.weights.shape(f"{name}.weight")[:2]

        def kernel() -> Tensor:
            return g.weights.load(f"{name}.weight").permute(0, 2, 3, 1).reshape(width, 4 * out)

        weight = g.derived(f"{name}.weight", (width, 4 * out), kernel)
        bias = g.derived(f"{name}.bias", (4 * out,), lambda: g.weights.load(f"{name}.bias").repeat(4))
        return g.op("Gemm", g.op("Reshape", x, g.constant([-1, width])), weight, bias)

    def _norm(self, x: ir.Value, channels: int, name: str) -> ir.Value:
        """Appends GroupNorm in one group of all values of a box, x [N x C, 4 x channels], statistics in float32."""
        g, kind = self.g, self.g.variant.group_norm
        one, zero = g.constant([1.0], np.float32), g.constant([0.0], np.float32)
        x = g.op("Reshape", x, g.constant([-1, 1, 4 * channels * self.cells]))
        if kind == "layer":
            ones = g.ones(g.constant([4 * channels * self.cells]))
            x = g.op("LayerNormalization", x, ones, axis=-1, epsilon=_EPSILON, stash_type=1)
        elif kind == "native":
            one, zero = (narrowed(g, each) for each in (one, zero))
            x = g.op("GroupNormalization", x, one, zero, num_groups=1, epsilon=_EPSILON, stash_type=1)
        else:
            x = narrowed(g, g.op("InstanceNormalization", widened(g, x), one, zero, epsilon=_EPSILON))
        x = g.op("Reshape", x, g.constant([-1, channels]))
        return g.op("Add", g.op("Mul", x, g.weight(f"{name}.weight")), g.weight(f"{name}.bias"))

    def _stacked(self, label: str, names: Sequence[str], *, turned: bool = False, squeeze: bool = False) -> ir.Value:
        """Returns equal tensors as one: stacked, with matrices turned for MatMul if asked, or joined by rows."""
        g, shape = self.g, self.g.weights.shape(names[0])

        def load() -> Tensor:
            tensors = [g.weights.load(name) for name in names]
            if squeeze:
                return torch.cat(tensors)
            return torch.stack([tensor.t() if turned else tensor for tensor in tensors])

        if squeeze:
            return g.derived(label, (len(names) * shape[0], *shape[1:]), load)
        return g.derived(label, (len(names), *(reversed(shape) if turned else shape)), load)
