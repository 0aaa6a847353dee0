"""Depth Anything V2 (small, base, large) in torch, from which `graph.py` writes the graph.

The weights are bound to transformers' module, built on the meta device, without a copy: they stay mapped from disk. Its
forward pass is untouched except for the authors' interpolation of the position embedding.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.depth import DEPTH_MULTIPLE

from .checkpoint import GRID, VARIANTS, DepthVariant, bind, read_depth_checkpoint
from .kind import CheckpointKind

_OFFSET = 0.1  # DINOv2's `interpolate_offset`


class DepthNetwork(nn.Module):
    """Depth Anything V2: pixels [N, 3, h, w] to depth [N, h, w]; h and w are multiples of 14.

    Input and output are float32 whatever the weights' dtype, after `.half()` too.

    Args:
        module: transformers' `DepthAnythingForDepthEstimation`; its position rule is replaced by the authors'.
        source: where its weights come from, for messages and for the manifest.
    """

    def __init__(self, module: Any, variant: DepthVariant, source: str) -> None:
        super().__init__()
        self.module, self.variant, self.source = module, variant, source
        self.kind: CheckpointKind = module.config.depth_estimation_type
        embeddings = module.backbone.embeddings

        def positions(_: Tensor, height: int, width: int) -> Tensor:
            table: Tensor = embeddings.position_embeddings
            return interpolate_positions(table, (height // DEPTH_MULTIPLE, width // DEPTH_MULTIPLE))

        embeddings.interpolate_pos_encoding = positions
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels, float32 [N, 3, h, w], to depth, float32 [N, h, w], >= 0.

        Of `kind` relative, nearer is larger; of `kind` metric, it is a distance.
        """
        depth: Tensor = self.module(pixels.to(self.module.dtype)).predicted_depth
        return depth.to(torch.float32)


def interpolate_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolates DINOv2's position embedding to another grid, by the authors' rule.

    `interpolate_pos_encoding` in Depth-Anything-V2's dinov2.py is bicubic with the scale (grid + 0.1) / side, so that
    samples are side / (grid + 0.1) apart; transformers asks for a target size, with samples side / grid apart. For the
    grid of its training, the table is returned unchanged.

    Args:
        table: [1, 1 + side * side, C], class token first, then the square grid row by row.
        grid: (rows, columns).

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


def load_depth(path: str | Path, kind: CheckpointKind | None = None) -> DepthNetwork:
    """Reads a Depth Anything V2 checkpoint.

    Args:
        path: a transformers folder, the authors' `.pth` (or the same state dict as `.safetensors`), a folder without
            config.json that contains one `.pth`, or the Hugging Face id "org/name" of either (with HF_HUB_OFFLINE=1
            only from the cache).
        kind: what the network gives: relative depth, or metric distances, which the runtime inverts. None for
            relative, unless the checkpoint's config or name says that it is metric.

    Returns:
        The network (eval mode, float32, CPU). Its weights stay mapped from disk: do not change the files while it is in
        use.

    Raises:
        CheckpointError: no checkpoint, another architecture or width, a missing, misshapen or unknown tensor, or a
            pickle that is more than a state dict of tensors; a metric checkpoint without `kind`, or of another kind.
    """
    checkpoint = read_depth_checkpoint(path, kind)
    module = _skeleton(checkpoint.variant, checkpoint.max_depth)
    bind(module, checkpoint)
    return DepthNetwork(module, checkpoint.variant, checkpoint.source)


def random_depth(variant: str, seed: int = 0) -> DepthNetwork:
    """Returns the real architecture with seeded random weights, to measure speed and memory without a download.

    Weights are normal with variance 1 / fan-in and layer scales small, so that activations stay near 1; the last
    layer's weights are positive, so that the depth is not all zero.

    Raises:
        InputError: the variant is not small, base, large or tiny.
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
            # A transposed convolution (kernel 2 or 4, no overlap) is stored [in, out, k, k]; its fan-in is `in`.
            transposed = ".resize." in name and empty.shape[-1] != 3
            value.mul_((empty.shape[0] if transposed else empty[0].numel()) ** -0.5)
        state[name] = value.abs_() if name == "head.conv3.weight" else value
    module.load_state_dict(state, assign=True)
    return DepthNetwork(module, VARIANTS[variant], "random weights")


def _skeleton(variant: DepthVariant, max_depth: int | None = None) -> Any:
    """Builds transformers' module without memory for its weights; `max_depth` only for metric distances."""
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
        depth_estimation_type="relative" if max_depth is None else "metric",
        max_depth=max_depth or 1,
    )
    with torch.device("meta"):
        return DepthAnythingForDepthEstimation(config)
