"""Encoding of all scenes for a stage's U-Net, once, before its training."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amodal.runtime.families.diffusion_vas.config import StageName
from amodal.runtime.pictures.images import clip_pixels

from ..families.diffusion_vas.plan import NOISE_AUGMENTATION
from .data import Floats, Pictures, augmented, pictures
from .recipe import CLIP_CONFIG, CLIP_MEAN, CLIP_STD, STAGES, Recipe, make_image_encoder
from .vae import trained_vae

_BLOCK = 40
_SALT = 202


class Latents:
    """A stage's training data, read from `folder`.

    Attributes:
        conditioning: latents of both conditions, float16 [N, T, 8, h, w].
        target: latents of the target, float16 [N, T, 4, h, w], of unit variance.
        embeddings: of the first condition, float16 [N, T, D].
        hidden: share of a cell's pixels where the object is hidden, float16 [N, T, 1, h, w].
    """

    def __init__(self, folder: Path, stage: StageName, recipe: Recipe) -> None:
        blocks = [np.load(_file(folder, stage, block)) for block in range(_blocks(stage, recipe))]
        self.conditioning, self.target, self.embeddings, self.hidden = (
            np.concatenate([block[name] for block in blocks])
            for name in ("conditioning", "target", "embeddings", "hidden")
        )


def encode_scenes(folder: Path, stage: StageName, recipe: Recipe, workers: int) -> None:
    """Encodes those scenes of the recipe that `folder` does not have yet.

    Args:
        folder: contains the stage's trained VAE (`vae_STAGE.pt`).
        workers: number of processes, of one thread each.
    """
    _file(folder, stage, 0).parent.mkdir(parents=True, exist_ok=True)
    missing = [block for block in range(_blocks(stage, recipe)) if not _file(folder, stage, block).exists()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for job in [pool.submit(_encode_block, folder, stage, recipe, block) for block in missing]:
            job.result()


def _blocks(stage: StageName, recipe: Recipe) -> int:
    scenes: int = recipe.of(stage, "scenes")
    return -(-scenes // _BLOCK)


def _file(folder: Path, stage: StageName, block: int) -> Path:
    return folder / f"latents_{stage}" / f"{block:04d}.npz"


def _encode_block(folder: Path, stage: StageName, recipe: Recipe, block: int) -> None:
    torch.set_num_threads(1)
    vae, image_encoder = _networks(folder, stage, recipe)
    arrays: dict[str, list[NDArray[np.float16]]] = {}
    for index in range(block * _BLOCK, min((block + 1) * _BLOCK, recipe.of(stage, "scenes"))):
        rng = np.random.default_rng([recipe.seed, _SALT + STAGES.index(stage), index])
        clip = pictures(index, recipe)
        first, second = clip.conditions(stage)
        noisy = [augmented(condition, NOISE_AUGMENTATION, rng) for condition in (first, second)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            frames = torch.from_numpy(np.concatenate([*noisy, clip.target(stage)]))
            latents = vae.encode(frames).latent_dist.mode().float().unflatten(0, (3, recipe.frames)).numpy()
        pixels = clip_pixels(first, CLIP_CONFIG["image_size"], CLIP_MEAN, CLIP_STD)
        with torch.no_grad():
            embeddings = image_encoder(torch.from_numpy(pixels)).image_embeds.numpy()
        conditioning, hidden = np.concatenate(latents[:2], axis=1), hidden_share(clip, latents.shape[-2:])
        encoded = {"conditioning": conditioning, "target": latents[2], "embeddings": embeddings, "hidden": hidden}
        for name, value in encoded.items():
            arrays.setdefault(name, []).append(value.astype(np.float16))
    file = _file(folder, stage, block)
    part = file.with_suffix(".part.npz")
    np.savez(part, **{name: np.stack(values) for name, values in arrays.items()})  # type: ignore[arg-type]
    os.replace(part, file)


def hidden_share(clip: Pictures, size: tuple[int, int]) -> Floats:
    """Returns the share of each latent cell's pixels where the object is hidden, float32 [T, 1, h, w]."""
    hidden = clip.hidden
    frames, _, height, width = hidden.shape
    cells = hidden.reshape(frames, 1, size[0], height // size[0], size[1], width // size[1])
    return np.asarray(cells.mean(axis=(3, 5)), np.float32)


@lru_cache(1)
def _networks(folder: Path, stage: StageName, recipe: Recipe) -> tuple[Any, Any]:
    return trained_vae(folder, stage, recipe), make_image_encoder(recipe.seed)
