"""The default model's networks and its training recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import diffusers
import torch
import transformers

from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.config import StageName

from .blur import start_as_blur

_UNet: Any = diffusers.UNetSpatioTemporalConditionModel
_VAE: Any = diffusers.AutoencoderKLTemporalDecoder
_CLIP: Any = transformers.CLIPVisionModelWithProjection

FIRST_SEED = 1_000_000  # of training scenes; those below are for demonstration and measurement
SIGMA_RANGE = 0.002, 700.0  # of the sampler's noise levels


@dataclass(frozen=True)
class Recipe:
    """All parameters of the training; pairs are for `segment` and `complete`."""

    frames: int = 8
    height: int = 64
    width: int = 128
    scenes: tuple[int, int] = (3600, 3200)  # encoded for a U-Net
    vae_steps: tuple[int, int] = (1800, 1700)
    vae_scenes: tuple[int, int] = (2, 1)  # per step
    vae_lr: float = 1e-3
    vae_kl: float = 3e-4  # weight of the Kullback-Leibler divergence, per latent value
    vae_chroma: float = 4.0  # weight of the error's chroma
    crop_share: float = 0.97  # of the VAE's steps, on quarter crops; the others see whole frames of one scene
    steps: tuple[int, int] = (6420, 11500)  # of a U-Net
    clips: int = 8  # per step
    lr: float = 1e-3
    sigma_mean: float = 0.7  # of log sigma
    sigma_std: float = 1.6
    window_share: tuple[float, float] = (0.0, 0.8)  # of the steps, on windows of half the width around hidden parts
    hidden_weight: tuple[float, float] = (0.0, 10.0)  # how much more an error counts where the object is hidden
    decoder_steps: tuple[int, int] = (0, 500)  # of one clip each, on the decoder alone, after the U-Net
    decoder_scenes: int = 240  # whose latents the U-Net samples for the decoder
    decoder_lr: float = 3e-4
    dropout: float = 0.1  # share of clips without conditions, for guidance
    ema: float = 0.999  # decay of the averaged weights, reached gradually
    cooldown: float = 0.3  # share of the steps at the end over which the learning rate falls to zero
    seed: int = 0  # of weights, data and noise

    def __post_init__(self) -> None:
        may_be_zero = {"window_share", "hidden_weight", "decoder_steps", "vae_kl", "vae_chroma", "crop_share"}
        may_be_zero |= {"dropout", "cooldown", "seed", "sigma_mean"}
        for name, value in asdict(self).items():
            least = min(value) if isinstance(value, tuple) else value
            if least < 0 or (name not in may_be_zero and least == 0):
                raise InputError(f"recipe: {name} is {value}; expected a number above 0.")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    def of(self, stage: StageName, name: str) -> Any:
        """Returns a stage's own value of a pair."""
        return getattr(self, name)[STAGES.index(stage)]


STAGES: tuple[StageName, ...] = ("segment", "complete")
WIDTH = 32  # of the context

_ATTENDING = "CrossAttn{}BlockSpatioTemporal"
_PLAIN = "{}BlockSpatioTemporal"


def _unet_config(*levels: str) -> dict[str, Any]:
    # No attention at full size: without it a step took half the time.
    return {
        "sample_size": 16,
        "in_channels": 12,
        "out_channels": 4,
        "block_out_channels": (64, 64, 64),
        "num_attention_heads": (2, 2, 2),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
        "down_block_types": tuple(level.format("Down") for level in levels),
        "up_block_types": tuple(level.format("Up") for level in reversed(levels)),
        "num_frames": 8,
    }


# 3.8 and 3.1 million parameters: shapes take more than colours.
UNET_CONFIGS: dict[StageName, dict[str, Any]] = {
    "segment": _unet_config(_PLAIN, _ATTENDING, _ATTENDING),
    "complete": _unet_config(_PLAIN, _ATTENDING, _PLAIN),
}


def _vae_config(*channels: int) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "layers_per_block": 1,
        "latent_channels": 4,
        "sample_size": 64,
        "scaling_factor": 1.0,
    }


# A norm has 32 groups: over 32 channels it removes each one's mean, which does no harm to masks.
VAE_CONFIGS: dict[StageName, dict[str, Any]] = {"segment": _vae_config(32, 32, 64), "complete": _vae_config(64, 64, 64)}
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
CLIP_MEAN = CLIP_STD = (0.5, 0.5, 0.5)


def make_vae(seed: int, stage: StageName) -> Any:
    """Returns a stage's VAE with seeded random weights.

    Its last layer, over time and channels, starts as the identity; the VAE of `complete` starts as a blur (see
    `start_as_blur`).
    """
    vae = _seeded(lambda: _VAE(**VAE_CONFIGS[stage]), 3 * seed)
    torch.nn.init.dirac_(vae.decoder.time_conv_out.weight)
    torch.nn.init.zeros_(vae.decoder.time_conv_out.bias)
    if stage == "complete":
        start_as_blur(vae)
    return vae


def make_unet(seed: int, stage: StageName) -> Any:
    """Returns a stage's U-Net with seeded random weights."""
    return _seeded(lambda: _UNet(**UNET_CONFIGS[stage]), 3 * seed + (1 if stage == "segment" else 2))


def make_image_encoder(seed: int) -> Any:
    """Returns the image encoder: an untrained random projection of the picture to embeddings of unit variance."""
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
