"""SAMEO's network in torch: EfficientSAM's image encoder, prompt encoder and mask decoder.

The state has the keys of yformer/EfficientSAM's checkpoints. The encoder's input may be rectangular. What does not
depend on a box is computed once per image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import MaskDecoder
from .sizes import NetworkConfig as NetworkConfig

_ENCODER_EPSILON = 1e-6


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of [B, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises; see the class."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, _ENCODER_EPSILON)
        return normed.permute(0, 3, 1, 2)


class _EncoderAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return out


class _EncoderMlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class EncoderBlock(nn.Module):
    """A block of the encoder, [B, tokens, dim] to the same: attention, then MLP, each after a LayerNorm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_ENCODER_EPSILON)
        self.attn = _EncoderAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_ENCODER_EPSILON)
        self.mlp = _EncoderMlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block; see the class."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out


class ImageEncoder(nn.Module):
    """The image encoder, a ViT with a neck of two convolutions and no norm before it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.pretrained_grid
        self.patch_embed = _PatchEmbed(config.dim, config.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.dim))
        self.blocks = nn.ModuleList(EncoderBlock(config.dim, config.heads) for _ in range(config.depth))
        self.neck = nn.Sequential(
            nn.Conv2d(config.dim, config.embed, 1, bias=False),
            LayerNorm2d(config.embed),
            nn.Conv2d(config.embed, config.embed, 3, padding=1, bias=False),
            LayerNorm2d(config.embed),
        )

    def positions(self) -> Tensor:
        """Returns the position embedding on the grid of the input, [1, rows x columns, dim]."""
        return interpolate_positions(self.pos_embed, self.config)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels [B, 3, height, width] to the image embedding [B, embed, rows, columns]."""
        x = self.patch_embed(pixels)
        x = x.flatten(2).transpose(1, 2) + self.positions()
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.transpose(1, 2).reshape(x.shape[0], -1, *self.config.grid))
        return out


def interpolate_positions(table: Tensor, config: NetworkConfig) -> Tensor:
    """Brings the stored position embedding to the grid of the encoder's input.

    The authors' rule: bicubic as torch's `interpolate` (a = -0.75), which on the stored grid changes nothing.

    Args:
        table: [1, 1 + cells, dim], a row for a class token that is not used, then the cells row by row.

    Returns:
        [1, rows x columns, dim].
    """
    table = table[:, 1:]
    if config.grid == config.pretrained_grid:
        return table
    picture = table.reshape(1, *config.pretrained_grid, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=config.grid, mode="bicubic", align_corners=False)
    return picture.flatten(2).transpose(1, 2)


def fourier_code(places: Tensor, matrix: Tensor) -> Tensor:
    """Codes places (x, y), 0 to 1 from edge to edge, [..., 2], as sines and cosines [..., 2 x features].

    Args:
        matrix: the checkpoint's random frequencies, [2, features].
    """
    angles = 2 * math.pi * ((2 * places - 1) @ matrix)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def dense_code(matrix: Tensor, grid: tuple[int, int]) -> Tensor:
    """Codes the centres of a grid's cells, row by row: [rows x columns, 2 x features]."""
    rows, columns = grid
    y = (torch.arange(rows, dtype=matrix.dtype, device=matrix.device) + 0.5) / rows
    x = (torch.arange(columns, dtype=matrix.dtype, device=matrix.device) + 0.5) / columns
    places = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
    return fourier_code(places.reshape(-1, 2), matrix)


class _RandomFourier(nn.Module):
    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))


class PromptEncoder(nn.Module):
    """Turns points and corners of boxes into tokens, and gives the code of the places of the image embedding."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.pe_layer = _RandomFourier(config.embed // 2)
        self.invalid_points = nn.Embedding(1, config.embed)
        self.point_embeddings = nn.Embedding(1, config.embed)
        self.bbox_top_left_embeddings = nn.Embedding(1, config.embed)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, config.embed)

    def dense(self) -> Tensor:
        """Returns the code of the cells' centres, [rows x columns, embed], row by row."""
        return dense_code(self.pe_layer.positional_encoding_gaussian_matrix, self.config.grid)

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """Codes prompts.

        Args:
            points: (x, y) in pixels of the encoder's input, [..., slots, 2]; -1 in empty slots.
            labels: float [..., slots]: -1 empty, 0 background, 1 point of the object, 2 and 3 top left and bottom right
                corner of its box. Empty slots keep their code and take part.

        Returns:
            Tokens [..., slots, embed].
        """
        size = points.new_tensor([self.config.width, self.config.height])
        kinds = (
            (-1, self.invalid_points),
            (1, self.point_embeddings),
            (2, self.bbox_top_left_embeddings),
            (3, self.bbox_bottom_right_embeddings),
        )
        tokens = fourier_code((points + 0.5) / size, self.pe_layer.positional_encoding_gaussian_matrix)
        for label, embedding in kinds:
            tokens = tokens + (labels == label).to(tokens.dtype)[..., None] * embedding.weight
        return tokens


class Sameo(nn.Module):
    """The whole network; its state has the keys of the official checkpoints."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def forward_prompts(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the masks of prompts on images that were encoded.

        Args:
            embedding: [B, embed, rows, columns].
            points: [B, N, slots, 2], as `PromptEncoder.forward` takes them.
            labels: [B, N, slots].

        Returns:
            (logits [B, N, 4, 4 x rows, 4 x columns], IoU [B, N, 4]); mask 0 is the single answer.
        """
        tokens = self.prompt_encoder(points, labels)
        out: tuple[Tensor, Tensor] = self.mask_decoder(embedding, self.prompt_encoder.dense(), tokens)
        return out

    def forward(self, pixels: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`forward_prompts` on normalised pixels [B, 3, height, width]."""
        return self.forward_prompts(self.image_encoder(pixels), points, labels)
