"""PACO's visible-to-complete generator (4.2): Stable Diffusion's U-Net, with a clone of its encoder for conditions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

MAPS = 3
"""Channels beside the partial-view map: masks of the objects, of their occluders, and the edges of both."""


class Clone(nn.Module):
    """The trainable copy of a U-Net's encoder and middle, with zero convolutions before it and after every block.

    Args:
        unet: diffusers' `UNet2DConditionModel`, which is copied.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        latent, widths = unet.config.in_channels, _skips(unet)
        self.entry = _zero_convolution(latent + MAPS, latent)
        self.conv_in, self.time_proj, self.time_embedding, self.down_blocks, self.mid_block = (
            copy.deepcopy(part)
            for part in (unet.conv_in, unet.time_proj, unet.time_embedding, unet.down_blocks, unet.mid_block)
        )
        self.exits = nn.ModuleList(_zero_convolution(width, width) for width in widths)
        self.last_exit = _zero_convolution(widths[-1], widths[-1])

    def forward(self, noisy: Tensor, steps: Tensor, condition: Tensor, text: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns what is added to the U-Net's skips, and to its middle; arguments as in `Generator.forward`."""
        time = self.time_embedding(self.time_proj(steps).to(noisy.dtype))
        sample = self.conv_in(clone_input(noisy, self.entry(condition)))
        skips = [sample]
        for block in self.down_blocks:
            attends = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            sample, states = block(hidden_states=sample, temb=time, **attends)
            skips += states
        sample = self.mid_block(sample, time, encoder_hidden_states=text)
        return [leave(skip) for leave, skip in zip(self.exits, skips, strict=True)], self.last_exit(sample)


class Generator(nn.Module):
    """Predicts the noise in a full-view map, from the partial-view map, masks and names (the network of equation 6).

    Args:
        unet: of a Stable Diffusion for text alone; its encoder stays as it is, its decoder is tuned.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.clone = Clone(unet)

    def forward(self, noisy: Tensor, steps: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        """Predicts noise.

        Args:
            noisy: [B, C, h, w], the full-view map with noise.
            steps: [B], of the 1,000 that Stable Diffusion was trained with.
            condition: [B, C + 3, h, w], of `conditions`.
            text: [B, 77, width], the names of all objects in one prompt.

        Returns:
            [B, C, h, w].
        """
        skips, middle = self.clone(noisy, steps, condition, text)
        noise: Tensor = self.unet(
            noisy,
            steps,
            text,
            down_block_additional_residuals=tuple(skips),
            mid_block_additional_residual=middle,
        ).sample
        return noise


def clone_input(noisy: Tensor, entered: Tensor) -> Tensor:
    """4.2, the clone's input: f_t + Z1([f_p, masks, edges]); both are [B, C, h, w]."""
    return noisy + entered


def conditions(partial: Tensor, masks: Tensor, occluders: Tensor, edges: Tensor) -> Tensor:
    """4.2, what the zero convolution at the entry takes: f_p, then masks and edges resized to it.

    Args:
        partial: [B, C, h, w], the partial-view map, scaled as the U-Net's latents.
        masks, occluders, edges: [B, 1, H, W] in [0, 1]; their means over cells are taken.

    Returns:
        [B, C + 3, h, w].
    """
    small = [nn.functional.interpolate(each, partial.shape[2:], mode="area") for each in (masks, occluders, edges)]
    return torch.cat([partial, *small], 1)


def noise_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Equation 6: the mean squared difference from the noise that was added."""
    return nn.functional.mse_loss(predicted, noise)


def _skips(unet: Any) -> list[int]:
    """Returns the channels of each state that a U-Net's encoder hands to its decoder."""
    widths = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        widths += [each.conv2.out_channels for each in block.resnets]
        widths += [block.resnets[-1].conv2.out_channels] * len(block.downsamplers or ())
    return widths


def _zero_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 1)
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution
