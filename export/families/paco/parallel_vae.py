"""PACO's parallel VAE (4.1): any number of object pictures become one map, and a mask asks for one object of it."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Query = Literal["literal", "concat"]


class Gaussian(NamedTuple):
    """Mean and logarithm of the variance of a map, [1, C, h, w] each."""

    mean: Tensor
    logvar: Tensor


def query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equation 1: softmax(q k^T / sqrt(d)) v over the cells of maps.

    Args:
        q: [N, d, h, w], of the objects' visible masks.
        k: [1, d, h, w], of the full-view map.
        v: [1, C, h, w], the same.

    Returns:
        [N, C, h, w]: what each cell of a mask gathered from the map.
    """
    count, depth, height, width = q.shape
    scores = q.flatten(2).transpose(1, 2) @ k.flatten(2) / math.sqrt(depth)
    gathered = scores.softmax(-1) @ v.flatten(2).transpose(1, 2)
    return gathered.transpose(1, 2).reshape(count, -1, height, width)


class LiteralQuery(nn.Module):
    """Finds objects in a map by equation 1; q, k and v are convolutions of the masks and the map."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.q = nn.Conv2d(1, width, 3, padding=1)
        self.k = nn.Conv2d(latent, width, 3, padding=1)
        self.v = nn.Conv2d(latent, latent, 3, padding=1)

    def forward(self, full: Tensor, masks: Tensor) -> Tensor:
        """Maps [1, C, h, w] and masks [N, 1, h, w] to [N, C, h, w]."""
        return query_attention(self.q(masks), self.k(full), self.v(full))


class ConcatQuery(nn.Module):
    """Finds objects in a map by convolutions of the map with the mask beside it, which keeps its position."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(latent + 1, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, latent, 3, padding=1)
        )

    def forward(self, full: Tensor, masks: Tensor) -> Tensor:
        """Maps [1, C, h, w] and masks [N, 1, h, w] to [N, C, h, w]."""
        found: Tensor = self.layers(torch.cat([full.expand(len(masks), -1, -1, -1), masks], 1))
        return found


class ParallelVae(nn.Module):
    """The VAE, around diffusers' `AutoencoderKL`, whose encoder stays Stable Diffusion's.

    Args:
        vae: its decoder gets a fourth output, the whole mask.
        query: `literal` is equation 1, `concat` has the mask beside the map.
        width: channels of queries and keys, or of the hidden layer.
    """

    def __init__(self, vae: Any, query: Query = "literal", width: int = 64) -> None:
        super().__init__()
        latent = vae.config.latent_channels
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.query = (LiteralQuery if query == "literal" else ConcatQuery)(latent, width)
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        rgb = vae.decoder.conv_out
        # The mask starts at zero, so that RGB is Stable Diffusion's.
        self.decoder.conv_out = nn.Conv2d(rgb.in_channels, rgb.out_channels + 1, 3, padding=1)
        for mine, theirs in ((self.decoder.conv_out.weight, rgb.weight), (self.decoder.conv_out.bias, rgb.bias)):
            mine.data = torch.cat([theirs.data, torch.zeros_like(theirs.data[:1])])
        self.scale: float = vae.config.scaling_factor
        self.cell: int = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, objects: Tensor) -> Gaussian:
        """Encodes objects into one map: their features are summed right after the first convolution (early fusion).

        Args:
            objects: [N, 3, H, W] in [-1, 1], each object alone on 0; sides are multiples of `cell`.
        """
        early = self.encoder.conv_in(objects).sum(0, keepdim=True)
        moments = self.quant_conv(_after_first_convolution(self.encoder, early))
        return Gaussian(*moments.chunk(2, 1))

    def decode(self, full: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Recovers objects from a map.

        Args:
            full: [1, C, h, w], a map as `encode` gives it.
            masks: float [N, 1, H, W] in {0, 1}, what is visible of each object.

        Returns:
            (RGB [N, 3, H, W] in about [-1, 1], logits of the whole masks [N, 1, H, W]).
        """
        small = nn.functional.interpolate(masks, full.shape[2:], mode="area")
        drawn: Tensor = self.decoder(self.post_quant_conv(self.query(full, small)))
        return drawn[:, :3], drawn[:, 3:]


def _after_first_convolution(encoder: Any, sample: Tensor) -> Tensor:
    """Runs the rest of diffusers' VAE encoder, as its `forward` does."""
    for block in encoder.down_blocks:
        sample = block(sample)
    sample = encoder.mid_block(sample)
    last: Tensor = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(sample)))
    return last
