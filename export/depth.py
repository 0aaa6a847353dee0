"""Depth Anything V2 (small, base, large) as a module that exports as a static graph.

The weights (`depth_checkpoint.py` reads them) are bound to transformers' modules, built on the meta device,
without a copy: they stay mapped from disk. The forward here is our own, because the input's size is static in
a bundle: the position embedding, the one part that depends on that size and is costly to trace, is
interpolated once, by the authors' rule, and becomes a constant. The rest is transformers' forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amodal.runtime.depth import DEPTH_MEAN, DEPTH_MULTIPLE, DEPTH_STD, depth_input_size
from amodal.runtime.errors import InputError

from .depth_checkpoint import GRID, VARIANTS, DepthVariant, bind, read_depth_checkpoint

_DEFAULT_SIZE = depth_input_size(256, 512)
_OFFSET = 0.1  # DINOv2's `interpolate_offset`


@dataclass(frozen=True)
class DepthInfo:
    """What a depth checkpoint turned out to be, for the manifest's entry of the `depth` component.

    `variant` is "small", "base", "large", "tiny" or "custom"; `parameters` counts the checkpoint's;
    `multiple`, `mean` and `std` describe the input (`amodal.runtime.depth.prepare_depth_input`).
    """

    variant: str
    parameters: int
    multiple: int = DEPTH_MULTIPLE
    mean: tuple[float, float, float] = DEPTH_MEAN
    std: tuple[float, float, float] = DEPTH_STD


class DepthNetwork(nn.Module):
    """Depth Anything V2 at one input size: pixels [N, 3, h, w] to relative depth [N, h, w].

    Input and output are float32 whatever the weights' dtype: `.half()` gives an FP16 network with the same
    face. N may be a dynamic dimension of `torch.onnx.export(network, (pixels,), dynamo=True,
    dynamic_shapes=({0: torch.export.Dim("n")},))`; the example then needs N >= 2, because torch.export takes
    a size of 1 for a constant. h and w are static.

    Args:
        module: transformers' `DepthAnythingForDepthEstimation`, whose parts are taken over.
        taps: 0-based blocks whose outputs the head reads.
        input_size: (h, w), multiples of 14 (`amodal.runtime.depth.depth_input_size`).

    Raises:
        InputError: an input size that is no multiple of 14.
    """

    class_token: Tensor
    positions: Tensor

    def __init__(self, module: Any, taps: tuple[int, ...], input_size: tuple[int, int]) -> None:
        super().__init__()
        if min(input_size) < DEPTH_MULTIPLE or any(side % DEPTH_MULTIPLE for side in input_size):
            raise InputError(
                f"Depth input of {input_size[0]}x{input_size[1]}: expected multiples of {DEPTH_MULTIPLE}."
            )
        self.input_size = input_size
        self.grid = (input_size[0] // DEPTH_MULTIPLE, input_size[1] // DEPTH_MULTIPLE)
        self.taps = taps
        embeddings = module.backbone.embeddings
        self.patches = embeddings.patch_embeddings
        self.blocks = module.backbone.encoder.layer[: max(taps) + 1]
        self.norm = module.backbone.layernorm
        self.neck = module.neck
        self.head = module.head
        # The first refinement block has one input only; its residual unit for a second one never runs.
        self.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()
        positions = interpolate_positions(embeddings.position_embeddings.detach(), self.grid)
        self.register_buffer("class_token", embeddings.cls_token.detach() + positions[:, :1])
        self.register_buffer("positions", positions[:, 1:].contiguous())
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels float32 [N, 3, h, w], normalised, to depth float32 [N, h, w], >= 0, nearer is larger."""
        tokens = self.patches(pixels.to(self.positions.dtype)) + self.positions
        tokens = torch.cat((self.class_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        features = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.taps:
                features.append(self.norm(tokens))
        depth: Tensor = self.head(self.neck(features, *self.grid), *self.grid)
        return depth.to(torch.float32)


def interpolate_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """DINOv2's position embedding for another grid, by the authors' rule.

    `interpolate_pos_encoding` in Depth-Anything-V2's dinov2.py is bicubic with the scale (grid + 0.1) / side,
    so the samples lie side / (grid + 0.1) apart; transformers asks for a target size, which puts them
    side / grid apart. On the grid it was trained at, the table is returned untouched.

    Args:
        table: [1, 1 + side * side, C], class token first, then the square grid row by row.
        grid: (rows, columns) wanted.

    Returns:
        [1, 1 + rows * columns, C] in the table's dtype; interpolated in float32.
    """
    side = math.isqrt(table.shape[1] - 1)
    if grid == (side, side):
        return table
    patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((grid[0] + _OFFSET) / side, (grid[1] + _OFFSET) / side)
    patches = nn.functional.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat((table[:, :1], patches.flatten(2).transpose(1, 2).to(table.dtype)), dim=1)


def load_depth(
    path: str | Path,
    input_size: tuple[int, int] = _DEFAULT_SIZE,
    *,
    variants: Mapping[str, DepthVariant] = VARIANTS,
) -> tuple[DepthNetwork, DepthInfo]:
    """Read a Depth Anything V2 checkpoint as a network for one input size.

    Args:
        path: a transformers folder, the authors' `.pth` (or the same state dict as `.safetensors`), or a
            folder without config.json that holds one `.pth`.
        input_size: (h, w) from `amodal.runtime.depth.depth_input_size`; the default is that of 256x512
        frames.
        variants: the sizes a state dict may have; the one of the checkpoint's width is taken.

    Returns:
        The network (eval mode, float32, CPU), and what it is. Its weights are still mapped from disk: do not
        change the files while it is in use.

    Raises:
        CheckpointError: no checkpoint, another architecture or width, a missing, misshapen or unknown tensor,
            or a pickle that is more than a state dict of tensors.
        InputError: an input size that is no multiple of 14.
    """
    checkpoint = read_depth_checkpoint(Path(path), variants)
    module = _skeleton(checkpoint.variant)
    parameters = bind(module, checkpoint)
    network = DepthNetwork(module, checkpoint.variant.taps, input_size)
    return network, DepthInfo(checkpoint.variant.name, parameters)


def random_depth(variant: str, seed: int = 0, input_size: tuple[int, int] = _DEFAULT_SIZE) -> DepthNetwork:
    """The real architecture with seeded random weights, to measure speed and memory without a download.

    Weights are normal with variance 1 / fan-in and layer scales small, so that activations stay near 1; the
    last layer's weights are positive, so that the depth is not all zero.

    Raises:
        InputError: a variant that is not small, base, large or tiny; an input size that is no multiple of 14.
    """
    if variant not in VARIANTS:
        raise InputError(f"There is no depth variant {variant!r}: expected one of {', '.join(VARIANTS)}.")
    module = _skeleton(VARIANTS[variant])
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, empty in module.state_dict().items():
        value = torch.randn(empty.shape, generator=generator)
        if "layer_scale" in name:
            value.mul_(0.02).add_(0.2)
        elif empty.ndim == 1:
            value.mul_(0.02).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith(("cls_token", "position_embeddings")):
            value.mul_(0.2)
        else:
            # A transposed convolution (kernel 2 or 4, no overlap) is stored [in, out, k, k]; its fan-in is
            # `in`.
            transposed = ".resize." in name and empty.shape[-1] != 3
            value.mul_((empty.shape[0] if transposed else empty[0].numel()) ** -0.5)
        state[name] = value.abs_() if name == "head.conv3.weight" else value
    module.load_state_dict(state, assign=True)
    return DepthNetwork(module, VARIANTS[variant].taps, input_size)


def _skeleton(variant: DepthVariant) -> Any:
    """transformers' module without memory for its weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config={
            "model_type": "dinov2",
            "hidden_size": variant.width,
            "num_hidden_layers": variant.layers,
            "num_attention_heads": variant.heads,
            "image_size": GRID * DEPTH_MULTIPLE,
            "patch_size": DEPTH_MULTIPLE,
            "out_indices": [tap + 1 for tap in variant.taps],
            "reshape_hidden_states": False,
            "use_mask_token": False,
        },
        reassemble_hidden_size=variant.width,
        neck_hidden_sizes=list(variant.neck),
        fusion_hidden_size=variant.fusion,
    )
    with torch.device("meta"):
        return DepthAnythingForDepthEstimation(config)
