"""What the default model is, and how long it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import diffusers
import torch
import transformers

from amodal.runtime.errors import InputError

_UNet: Any = diffusers.UNetSpatioTemporalConditionModel
_VAE: Any = diffusers.AutoencoderKLTemporalDecoder
_CLIP: Any = transformers.CLIPVisionModelWithProjection

# Training draws scenes from here on; what lies below is for demonstration and measurement.
FIRST_SEED = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """Every number of the training.

    Attributes:
        frames, height, width: of a clip.
        scenes: clips encoded for the U-Nets.
        vae_steps, vae_clips, vae_lr, vae_kl: steps, clips per step, learning rate, and weight of the Kullback-Leibler
            divergence per latent value.
        crop_share: share of the VAE's steps on quarter crops; the rest sees whole frames.
        steps, clips, lr: the same for a U-Net.
        sigma_mean, sigma_std: of log sigma.
        dropout: share of clips without conditions, for guidance.
        ema: decay of the averaged weights, reached gradually.
        cooldown: share of the steps at the end over which the learning rate falls to zero.
        seed: of weights, data and noise.
    """

    frames: int = 8
    height: int = 64
    width: int = 128
    scenes: int = 1600
    vae_steps: int = 1400
    vae_clips: int = 3
    vae_lr: float = 1e-3
    vae_kl: float = 3e-4
    crop_share: float = 0.75
    steps: int = 2000
    clips: int = 8
    lr: float = 1e-3
    sigma_mean: float = 0.7
    sigma_std: float = 1.6
    dropout: float = 0.1
    ema: float = 0.999
    cooldown: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("vae_kl", "crop_share", "dropout", "cooldown", "seed", "sigma_mean") else None
            if value < 0 or (least is None and value == 0):
                raise InputError(f"recipe: {name} is {value}; expected a number above 0.")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    @classmethod
    def names(cls) -> list[str]:
        """The attributes' names."""
        return [field.name for field in fields(cls)]


WIDTH = 32  # of the context

UNET_CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 12,
    "out_channels": 4,
    "block_out_channels": (32, 64, 96),
    "num_attention_heads": (1, 2, 3),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 2 + ("DownBlockSpatioTemporal",),
    "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 2,
    "num_frames": 8,
}
VAE_CONFIG: dict[str, Any] = {
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 64,
}
CLIP_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "projection_dim": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}


def make_vae(seed: int) -> Any:
    """The VAE with seeded random weights."""
    return _seeded(lambda: _VAE(**VAE_CONFIG), 3 * seed)


def make_unet(seed: int, stage: str) -> Any:
    """A stage's U-Net with seeded random weights."""
    return _seeded(lambda: _UNet(**UNET_CONFIG), 3 * seed + (1 if stage == "segment" else 2))


def make_image_encoder(seed: int) -> Any:
    """The image encoder: never trained, a fixed random projection of the picture; its embeddings have unit variance."""
    encoder = _seeded(lambda: _CLIP(transformers.CLIPVisionConfig(**CLIP_CONFIG)), 3 * seed)
    encoder.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.nn.functional.interpolate(torch.randn(32, 3, 7, 7, generator=generator), size=(224, 224))
    with torch.no_grad():
        spread = encoder(pictures).image_embeds.std(dim=0).mean()
        encoder.visual_projection.weight /= spread
    return encoder


def _seeded(make: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
