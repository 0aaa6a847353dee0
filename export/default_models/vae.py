"""Training of a stage's VAE, on the stage's conditions and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from amodal.runtime.families.diffusion_vas.config import StageName

from .data import Floats, pictures
from .loop import load_average, train
from .recipe import Recipe, make_vae

_SALT = {"segment": 101, "complete": 111}
# One of each group is drawn from every scene.
Groups = tuple[tuple[str, ...], ...]
_KINDS: dict[StageName, Groups] = {
    "segment": (("modal",), ("depth",), ("amodal",)),
    "complete": (("whole",), ("rgb", "whole")),  # its masks are only ever read
}
OBJECT_WEIGHT = 4.0
_MEASURED = 16


def train_vae(folder: Path, stage: StageName, recipe: Recipe, device: str = "cpu") -> Any:
    """Trains a stage's VAE, continuing from what is in `folder`.

    The loss is L1 plus squared distance plus a small Kullback-Leibler divergence. A pixel of the object weighs five
    times one of the background, which is mostly plain, and the error's chroma counts `recipe.vae_chroma` times more.
    Most steps see quarter crops at a quarter of the cost; the last ones see whole frames, because the norms' statistics
    depend on the size.
    """
    vae, steps = make_vae(recipe.seed, stage), recipe.of(stage, "vae_steps")
    torch.manual_seed(recipe.seed)
    torch.nn.Module.to(vae, device)
    whole_from = round(recipe.crop_share * steps)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT[stage], step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        whole = step >= whole_from
        scenes, kinds = 1 if whole else recipe.of(stage, "vae_scenes"), _KINDS[stage]
        frames, weight = (x.to(device) for x in _batch(rng, kinds, recipe, scenes, crop=not whole))
        with torch.autocast(frames.device.type, torch.bfloat16):
            posterior = vae.encode(frames).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            decoded = vae.decode(mean + noise * (0.5 * log_variance).exp(), num_frames=recipe.frames).sample
        error = decoded.float() - frames
        distance = _weighted(error, weight)
        chroma = error - error.mean(1, keepdim=True)
        distance = distance + recipe.vae_chroma * _weighted(chroma, weight)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        l1, l1_chroma = (
            x.detach().abs().unflatten(0, (-1, recipe.frames)).mean(dim=(1, 2, 3, 4)) for x in (error, chroma)
        )
        values = {f"l1_{'/'.join(kind)}": l1[i :: len(kinds)].mean().item() for i, kind in enumerate(kinds)}
        values |= {"chroma": l1_chroma[len(kinds) - 1 :: len(kinds)].mean().item()}
        values |= {"kl": divergence.item(), "std": mean.detach().std().item()}
        return distance + recipe.vae_kl * divergence, values

    name = f"vae_{stage}"
    train(folder, name, vae, loss_of, steps=steps, lr=recipe.vae_lr, ema=0.995, cooldown=recipe.cooldown)
    return vae


def trained_vae(folder: Path, stage: StageName, recipe: Recipe) -> Any:
    """Loads the averaged VAE that `train_vae` wrote, its latents scaled to unit variance over the stage's targets.

    The weights include the scale, because a bundle has one scaling factor for the VAEs of both stages.
    """
    vae = make_vae(recipe.seed, stage)
    load_average(vae, folder / f"vae_{stage}.pt")
    vae.eval().requires_grad_(False)
    targets = np.concatenate([pictures(index, recipe).target(stage) for index in range(_MEASURED)])
    with torch.no_grad():
        deviation = vae.encode(torch.from_numpy(targets)).latent_dist.mode().std()
        means = slice(vae.config.latent_channels)
        vae.quant_conv.weight[means] /= deviation
        vae.quant_conv.bias[means] /= deviation
        vae.decoder.conv_in.weight *= deviation
    return vae


def _weighted(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (weight * (error.abs() + error.square())).sum() / (3 * weight.sum())


def _batch(
    rng: np.random.Generator, groups: Groups, recipe: Recipe, scenes: int, crop: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws clips [N, 3, H, W], or quarters of them, one of each group of kinds, and pixel weights [N, 1, H, W]."""
    chosen: list[Floats] = []
    weights: list[Floats] = []
    for _ in range(scenes):
        clip = pictures(int(rng.integers(min(recipe.scenes))), recipe)
        weight = 1 + np.float32(OBJECT_WEIGHT) * (clip.amodal[:, :1] > 0)
        area = _around(rng, weight[:, 0] > 1) if crop else (slice(None), slice(None))
        turn = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        for kinds in groups:
            kind = str(rng.choice(kinds))
            chosen.append(getattr(clip, kind)[(..., *area)][..., turn])
            plain = np.ones_like(weight) if kind in ("depth", "rgb") else weight
            weights.append(plain[(..., *area)][..., turn])
    frames, weight_of = (torch.from_numpy(np.ascontiguousarray(np.concatenate(arrays))) for arrays in (chosen, weights))
    return frames, weight_of


def _around(rng: np.random.Generator, inside: np.ndarray[Any, Any]) -> tuple[slice, slice]:
    """Draws a quarter of the frame that contains a pixel of the object."""
    height, width = inside.shape[1:]
    rows, columns = np.nonzero(inside.any(axis=0))
    pixel = rng.integers(len(rows))
    top = int(np.clip(rows[pixel] - rng.integers(height // 2), 0, height // 2))
    left = int(np.clip(columns[pixel] - rng.integers(width // 2), 0, width // 2))
    return slice(top, top + height // 2), slice(left, left + width // 2)
