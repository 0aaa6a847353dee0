"""The sizes of SAMEO's network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are those of EfficientSAM-Ti, whose input is 1024x1024.

    Attributes:
        height: the encoder's input in pixels, a multiple of `patch`.
        width: the same.
        patch: side of a patch in pixels.
        dim: channels of the encoder's tokens.
        depth: blocks of the encoder.
        heads: heads of the encoder.
        embed: channels of the image embedding and of the decoder's tokens; a multiple of 2 x `decoder_heads`.
        decoder_heads: heads of the decoder.
        decoder_mlp: hidden channels of the decoder's MLPs.
        upscaling: channels after either transposed convolution; each doubles the size.
        iou_hidden: hidden channels of the head that predicts IoU.
        slots: points per prompt, with empty ones.
        pretrained_grid: rows and columns of the stored position embedding.
    """

    height: int = 1024
    width: int = 1024
    patch: int = 16
    dim: int = 192
    depth: int = 12
    heads: int = 3
    embed: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    upscaling: tuple[int, int] = (64, 32)
    iou_hidden: int = 256
    slots: int = 6
    pretrained_grid: tuple[int, int] = (14, 14)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image embedding."""
        return self.height // self.patch, self.width // self.patch

    @property
    def low_size(self) -> tuple[int, int]:
        """Height and width of the masks that the decoder gives."""
        return 4 * self.grid[0], 4 * self.grid[1]
