"""Training the VAE: masks, depth and RGB alike, since one VAE serves both stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data import pictures
from .loop import train
from .recipe import Recipe, make_vae

_SALT = 101
_KINDS = ("modal", "depth", "amodal", "visible", "whole")
_SHARES = (0.15, 0.15, 0.2, 0.2, 0.3)


def train_vae(folder: Path, recipe: Recipe) -> Any:
    """The trained VAE, from `folder` as far as it got there.

    L1 distance plus a small Kullback-Leibler divergence. Most steps see quarter crops at a quarter of the cost; the
    last ones see whole frames, because the statistics of the norms are those of what they see.
    """
    vae = make_vae(recipe.seed)
    whole_from = round(recipe.crop_share * recipe.vae_steps)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        whole = step >= whole_from
        clips = _batch(rng, recipe, recipe.vae_clips if whole else 3 * recipe.vae_clips, crop=not whole)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(clips).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            decoded = vae.decode(mean + noise * (0.5 * log_variance).exp(), num_frames=recipe.frames).sample
        distance = (decoded.float() - clips).abs().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        spread = mean.detach().std().item()
        return distance + recipe.vae_kl * divergence, {"l1": distance.item(), "kl": divergence.item(), "std": spread}

    train(folder, "vae", vae, loss_of, steps=recipe.vae_steps, lr=recipe.vae_lr, ema=0.995, cooldown=recipe.cooldown)
    return vae


def _batch(rng: np.random.Generator, recipe: Recipe, clips: int, crop: bool) -> torch.Tensor:
    """[clips * T, 3, H, W], or quarters of that."""
    chosen = []
    for _ in range(clips):
        clip = pictures(int(rng.integers(recipe.scenes)), recipe)
        frames = getattr(clip, str(rng.choice(_KINDS, p=_SHARES)))
        if crop:
            top, left = rng.integers(recipe.height // 2 + 1), rng.integers(recipe.width // 2 + 1)
            frames = frames[:, :, top : top + recipe.height // 2, left : left + recipe.width // 2]
        chosen.append(frames[:, :, :, ::-1] if rng.random() < 0.5 else frames)
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(chosen)))
