"""Depth Anything V2 (small, base, large) in torch: what `depth_graph.py` writes, and is compared with.

The weights (`depth_checkpoint.py` reads them) are bound to transformers' module, built on the meta device,
without a copy: they stay mapped from disk. Its forward is untouched but for one rule, the authors'
interpolation of the position embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.depth import DEPTH_MEAN, DEPTH_MULTIPLE, DEPTH_STD

from .checkpoint import GRID, VARIANTS, DepthVariant, bind, read_depth_checkpoint

_OFFSET = 0.1  # DINOv2's `interpolate_offset`


@dataclass(frozen=True)
class DepthInfo:
    """What a depth network is, for the manifest's entry of the `depth` component.

    `variant` is "small", "base", "large", "tiny" or "custom"; `multiple`, `mean` and `std` describe the input
    (`amodal.runtime.pictures.depth.prepare_depth_input`).
    """

    variant: str
    parameters: int
    multiple: int = DEPTH_MULTIPLE
    mean: tuple[float, float, float] = DEPTH_MEAN
    std: tuple[float, float, float] = DEPTH_STD


class DepthNetwork(nn.Module):
    """Depth Anything V2: pixels [N, 3, h, w] to relative depth [N, h, w]; h and w are multiples of 14.

    Input and output are float32 whatever the weights' dtype: `.half()` gives an FP16 network with the same
    face.

    Args:
        module: transformers' `DepthAnythingForDepthEstimation`; it is given the authors' position rule.
        variant: its sizes.
        source: where its weights come from, for messages and for the manifest.
    """

    def __init__(self, module: Any, variant: DepthVariant, source: str) -> None:
        super().__init__()
        self.module, self.variant, self.source = module, variant, source
        embeddings = module.backbone.embeddings

        def positions(_: Tensor, height: int, width: int) -> Tensor:
            table: Tensor = embeddings.position_embeddings
            return interpolate_positions(table, (height // DEPTH_MULTIPLE, width // DEPTH_MULTIPLE))

        embeddings.interpolate_pos_encoding = positions
        self.requires_grad_(False).eval()

    @property
    def info(self) -> DepthInfo:
        """What this network is."""
        return DepthInfo(self.variant.name, sum(p.numel() for p in self.parameters()))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels float32 [N, 3, h, w], normalised, to depth float32 [N, h, w], >= 0, nearer is larger."""
        depth: Tensor = self.module(pixels.to(self.module.dtype)).predicted_depth
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


def load_depth(path: str | Path) -> DepthNetwork:
    """Read a Depth Anything V2 checkpoint.

    Args:
        path: a transformers folder, the authors' `.pth` (or the same state dict as `.safetensors`), or a
            folder without config.json that holds one `.pth`.

    Returns:
        The network (eval mode, float32, CPU). Its weights are still mapped from disk: do not change the files
        while it is in use.

    Raises:
        CheckpointError: no checkpoint, another architecture or width, a missing, misshapen or unknown tensor,
            or a pickle that is more than a state dict of tensors.
    """
    checkpoint = read_depth_checkpoint(Path(path))
    module = _skeleton(checkpoint.variant)
    bind(module, checkpoint)
    return DepthNetwork(module, checkpoint.variant, str(checkpoint.path))


def random_depth(variant: str, seed: int = 0) -> DepthNetwork:
    """The real architecture with seeded random weights, to measure speed and memory without a download.

    Weights are normal with variance 1 / fan-in and layer scales small, so that activations stay near 1; the
    last layer's weights are positive, so that the depth is not all zero.

    Raises:
        InputError: a variant that is not small, base, large or tiny.
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
    return DepthNetwork(module, VARIANTS[variant], "random weights")


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
