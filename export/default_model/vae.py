"""Training the VAE: masks, depth and RGB alike, since one VAE serves both stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data import Floats, pictures
from .loop import train
from .recipe import Recipe, make_vae

_SALT = 101
# One of each group is drawn from every scene.
_KINDS = (("modal", "depth", "visible"), ("amodal",), ("rgb", "whole"))
_NAMES = ("input", "mask", "rgb")
_OBJECT_WEIGHT = 4.0


def train_vae(folder: Path, recipe: Recipe) -> Any:
    """The trained VAE, from `folder` as far as it got there.

    L1 plus squared distance plus a small Kullback-Leibler divergence; a pixel of the object weighs five times one of
    the background, which is mostly plain. The error's chroma counts once more, `recipe.vae_chroma` times: in a mixture
    of grey masks and coloured frames the latents held no colour at all after 1400 steps without it. Most steps see quarter crops at a quarter of the cost; the last ones see whole frames, because the statistics of
    the norms are those of what they see.
    """
    vae = make_vae(recipe.seed)
    whole_from = round(recipe.crop_share * recipe.vae_steps)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        whole = step >= whole_from
        scenes = max(1, recipe.vae_clips // 2) if whole else recipe.vae_clips
        frames, weight = _batch(rng, recipe, scenes, crop=not whole)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(frames).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            decoded = vae.decode(mean + noise * (0.5 * log_variance).exp(), num_frames=recipe.frames).sample
        error = decoded.float() - frames
        distance = _weighted(error, weight) + recipe.vae_chroma * _weighted(error - error.mean(1, keepdim=True), weight)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        sizes = error.detach().abs().unflatten(0, (-1, recipe.frames)).mean(dim=(1, 2, 3, 4))
        values = {f"l1_{name}": sizes[i :: len(_KINDS)].mean().item() for i, name in enumerate(_NAMES)}
        chroma = (error - error.mean(1, keepdim=True)).detach().abs().unflatten(0, (-1, recipe.frames))
        values |= {"chroma": chroma.mean(dim=(1, 2, 3, 4))[2::3].mean().item()}
        values |= {"kl": divergence.item(), "std": mean.detach().std().item()}
        return distance + recipe.vae_kl * divergence, values

    train(folder, "vae", vae, loss_of, steps=recipe.vae_steps, lr=recipe.vae_lr, ema=0.995, cooldown=recipe.cooldown)
    return vae


def _weighted(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (weight * (error.abs() + error.square())).sum() / (3 * weight.sum())


def _batch(rng: np.random.Generator, recipe: Recipe, scenes: int, crop: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [3 scenes * T, 3, H, W], or quarters of that, and each pixel's weight [3 scenes * T, 1, H, W]."""
    chosen: list[Floats] = []
    weights: list[Floats] = []
    for _ in range(scenes):
        clip = pictures(int(rng.integers(recipe.scenes)), recipe)
        weight = 1 + np.float32(_OBJECT_WEIGHT) * (clip.amodal[:, :1] > 0)
        area = _around(rng, weight[:, 0] > 1) if crop else (slice(None), slice(None))
        turn = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        for kinds in _KINDS:
            kind = str(rng.choice(kinds))
            chosen.append(getattr(clip, kind)[(..., *area)][..., turn])
            plain = np.ones_like(weight) if kind in ("depth", "rgb") else weight
            weights.append(plain[(..., *area)][..., turn])
    both = (torch.from_numpy(np.ascontiguousarray(np.concatenate(arrays))) for arrays in (chosen, weights))
    frames, weight_of = both
    return frames, weight_of


def _around(rng: np.random.Generator, inside: np.ndarray[Any, Any]) -> tuple[slice, slice]:
    """A quarter of the frame that holds a pixel of the object."""
    height, width = inside.shape[1:]
    rows, columns = np.nonzero(inside.any(axis=0))
    pixel = rng.integers(len(rows))
    top = int(np.clip(rows[pixel] - rng.integers(height // 2), 0, height // 2))
    left = int(np.clip(columns[pixel] - rng.integers(width // 2), 0, width // 2))
    return slice(top, top + height // 2), slice(left, left + width // 2)
