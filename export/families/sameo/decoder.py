"""SAMEO's mask decoder in torch: two transformer layers between tokens and image, and a head per mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sizes import NetworkConfig

_MASKS = 4


class Attention(nn.Module):
    """Attention with projections of its own into `inner` channels.

    `forward` takes queries, keys and values as they are; `attend` takes them projected, so that a projection of the
    image is computed once for all boxes.
    """

    def __init__(self, dim: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Maps [B, n, dim], [B, m, dim] and [B, m, dim] to [B, n, dim]."""
        return self.attend(self.q_proj(q), self.k_proj(k), self.v_proj(v))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same after the projections, from [B, n, inner], [B, m, inner] and [B, m, inner]."""
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """`hidden` layers with GELU, then a linear one; maps [..., dim] to [..., out]."""

    def __init__(self, dim: int, width: int, out: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(dim if i == 0 else width, width), nn.GELU()) for i in range(hidden)
        )
        self.fc = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layers; see the class."""
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.fc(x)
        return out


class DecoderLayer(nn.Module):
    """One layer: among tokens, tokens to image, MLP, image to tokens."""

    def __init__(self, config: NetworkConfig, first: bool) -> None:
        super().__init__()
        dim, heads = config.embed, config.decoder_heads
        self.first = first
        self.self_attn = Attention(dim, dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, dim // 2, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, config.decoder_mlp, dim, 1)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, dim // 2, heads)

    def forward(self, tokens: Tensor, code: Tensor, image: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Updates tokens and image.

        Args:
            tokens: [B x N, t, dim].
            code: the tokens as they came in, of the same shape, which takes the place of a position code.
            image: [B, cells, dim] before the first layer, where all boxes of an image share it; else [B x N, ...].
            dense: the code of the cells, [cells, dim].

        Returns:
            (tokens, image [B x N, cells, dim]).
        """
        if not self.first:
            tokens = tokens + code
        tokens = self.norm1(tokens + self.self_attn(tokens, tokens, tokens))

        boxes = tokens.shape[0] // image.shape[0]
        located = image + dense
        # A softmax is taken per query: the tokens of all boxes of an image can be queries of one attention.
        queries = (tokens + code).reshape(image.shape[0], -1, tokens.shape[-1])
        attended = self.cross_attn_token_to_image(queries, located, image)
        tokens = self.norm2(tokens + attended.reshape(tokens.shape))
        tokens = self.norm3(tokens + self.mlp(tokens))

        back = self.cross_attn_image_to_token
        asking = back.q_proj(located).repeat_interleave(boxes, dim=0)
        attended = back.attend(asking, back.k_proj(tokens + code), back.v_proj(tokens))
        image = self.norm4(image.repeat_interleave(boxes, dim=0) + attended)
        return tokens, image


class _Transformer(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config, first) for first in (True, False))
        self.final_attn_token_to_image = Attention(config.embed, config.embed // 2, config.decoder_heads)
        self.norm_final_attn = nn.LayerNorm(config.embed)

    def forward(self, tokens: Tensor, image: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        code = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, code, image, dense)
        attended = self.final_attn_token_to_image(tokens + code, image + dense, image)
        return self.norm_final_attn(tokens + attended), image


class MaskDecoder(nn.Module):
    """Predicts four masks and their IoU from an image embedding and the tokens of a prompt."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, (middle, last) = config.embed, config.upscaling
        self.grid = config.grid
        self.transformer = _Transformer(config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(_MASKS, dim)
        self.final_output_upscaling_layers = nn.ModuleList(
            [
                nn.Sequential(nn.ConvTranspose2d(dim, middle, 2, 2), nn.GroupNorm(1, middle), nn.GELU()),
                nn.Sequential(nn.ConvTranspose2d(middle, last, 2, 2), nn.Identity(), nn.GELU()),
            ]
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(dim, dim, last, 2) for _ in range(_MASKS))
        self.iou_prediction_head = Mlp(dim, config.iou_hidden, _MASKS, 2)

    def forward(self, embedding: Tensor, dense: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts masks.

        Args:
            embedding: [B, embed, rows, columns].
            dense: the code of its cells, [rows x columns, embed].
            prompts: [B, N, slots, embed].

        Returns:
            (logits [B, N, 4, 4 x rows, 4 x columns], IoU [B, N, 4]).
        """
        batch, boxes = prompts.shape[:2]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, boxes, -1, -1), prompts], dim=2).flatten(0, 1)
        tokens, image = self.transformer(tokens, embedding.flatten(2).transpose(1, 2), dense)
        picture = image.transpose(1, 2).reshape(batch * boxes, -1, *self.grid)
        for layer in self.final_output_upscaling_layers:
            picture = layer(picture)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = weights @ picture.flatten(2)
        iou: Tensor = self.iou_prediction_head(tokens[:, 0])
        return logits.reshape(batch, boxes, _MASKS, *picture.shape[2:]), iou.reshape(batch, boxes, _MASKS)
