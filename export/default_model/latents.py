"""Every scene as the U-Nets read it, encoded once, before they are trained."""

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

from amodal.export.bundle import NOISE_AUGMENTATION
from amodal.runtime.images import clip_pixels
from amodal.runtime.manifest import StageName

from .data import augmented, pictures
from .recipe import CLIP_CONFIG, CLIP_MEAN, CLIP_STD, STAGES, Recipe, make_image_encoder, make_vae

_BLOCK = 40
_SALT = 202


class Latents:
    """What a stage is trained on.

    Attributes:
        conditioning: float16 [N, T, 8, h, w], both conditions, as the VAE encoder gives them.
        target: float16 [N, T, 4, h, w], not scaled.
        embeddings: float16 [N, T, D], of the first condition.
        spread: standard deviation of both stages' targets; 1 / spread is the scaling factor.
    """

    def __init__(self, folder: Path, stage: StageName, recipe: Recipe) -> None:
        blocks = [np.load(_file(folder, block)) for block in range(_blocks(recipe))]
        self.conditioning = np.concatenate([b[f"{stage}_conditioning"] for b in blocks])[: recipe.scenes]
        self.target = np.concatenate([b[f"{stage}_target"] for b in blocks])[: recipe.scenes]
        self.embeddings = np.concatenate([b[f"{stage}_embeddings"] for b in blocks])[: recipe.scenes]
        self.spread = spread(folder)


def encode_scenes(folder: Path, recipe: Recipe, workers: int) -> None:
    """Encodes all scenes of the recipe that `folder` does not hold yet, into files of some scenes each.

    Args:
        folder: with the trained VAE (`vae.pt`).
        workers: processes, of one thread each.
    """
    (folder / "latents").mkdir(exist_ok=True)
    missing = [block for block in range(_blocks(recipe)) if not _file(folder, block).exists()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for _ in pool.map(_encode_block, [folder] * len(missing), [recipe] * len(missing), missing):
            pass


def spread(folder: Path) -> float:
    """Standard deviation of the targets' latents, over the first scenes and both stages."""
    first = np.load(_file(folder, 0))
    return float(np.std(np.concatenate([first[f"{stage}_target"].astype(np.float32) for stage in STAGES])))


def _blocks(recipe: Recipe) -> int:
    return -(-recipe.scenes // _BLOCK)


def _file(folder: Path, block: int) -> Path:
    return folder / "latents" / f"{block:04d}.npz"


def _encode_block(folder: Path, recipe: Recipe, block: int) -> None:
    torch.set_num_threads(1)
    vae, image_encoder = _networks(folder, recipe)
    arrays: dict[str, list[NDArray[np.float16]]] = {}
    for index in range(block * _BLOCK, (block + 1) * _BLOCK):
        rng = np.random.default_rng([recipe.seed, _SALT, index])
        clip = pictures(index, recipe)
        for stage in STAGES:
            first, second = clip.conditions(stage)
            frames = [augmented(first, NOISE_AUGMENTATION, rng), augmented(second, NOISE_AUGMENTATION, rng)]
            latents = _encode(vae, np.concatenate([*frames, clip.target(stage)])).reshape(
                3, recipe.frames, -1, *_latent_size(recipe)
            )
            pixels = clip_pixels(first, CLIP_CONFIG["image_size"], CLIP_MEAN, CLIP_STD)
            with torch.no_grad():
                embeddings = image_encoder(torch.from_numpy(pixels)).image_embeds.numpy()
            for name, value in (
                ("conditioning", latents[:2].transpose(1, 0, 2, 3, 4).reshape(recipe.frames, -1, *latents.shape[3:])),
                ("target", latents[2]),
                ("embeddings", embeddings),
            ):
                arrays.setdefault(f"{stage}_{name}", []).append(value.astype(np.float16))
    part = _file(folder, block).with_suffix(".part.npz")
    np.savez(part, **{name: np.stack(values) for name, values in arrays.items()})  # type: ignore[arg-type]
    os.replace(part, _file(folder, block))


def _encode(vae: Any, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mode: NDArray[np.float32] = vae.encode(torch.from_numpy(frames)).latent_dist.mode().float().numpy()
    return mode


def _latent_size(recipe: Recipe) -> tuple[int, int]:
    return recipe.height // 4, recipe.width // 4


@lru_cache(1)
def _networks(folder: Path, recipe: Recipe) -> tuple[Any, Any]:
    vae = make_vae(recipe.seed)
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["average"])
    return vae.eval(), make_image_encoder(recipe.seed)
