"""Further training of a stage's VAE decoder, on latents that its U-Net sampled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amodal.runtime.families.diffusion_vas.config import StageName
from amodal.runtime.families.diffusion_vas.context import context_rows
from amodal.runtime.sampling.denoiser import denoised_of, guide, is_guided, scale_input
from amodal.runtime.sampling.sampler import sample
from amodal.runtime.sampling.schedule import Schedule, karras_sigmas

from .data import Floats, pictures
from .latents import Latents
from .loop import load_average, train
from .recipe import SIGMA_RANGE, Recipe, make_unet
from .unet import hidden_windows, set_attention, velocities
from .vae import OBJECT_WEIGHT, trained_vae

_SALT = 505
# As people run it: few steps or many, without guidance or with the default.
_STEPS = (6, 10, 25)
_GUIDANCE = (1.0, 1.5)


def train_decoder(folder: Path, stage: StageName, recipe: Recipe, device: str = "cpu") -> None:
    """Trains the decoder of `folder/vae_STAGE.pt` further, after the U-Net; writes `decoder_STAGE.pt`.

    Latents that a U-Net samples differ from the encoder's: some noise is left, the more the more steps it took. A
    decoder that has seen such latents does not paint their noise. Every other step uses the encoder's latents, so that
    the decoder stays their inverse. The encoder, and with it the U-Net's input, does not change. The loss is the square
    error, which PSNR measures, with the U-Net's weight on hidden parts.
    """
    steps = recipe.of(stage, "decoder_steps")
    if not steps:
        return
    encoded = Latents(folder, stage, recipe)
    sampled = _sampled(folder, stage, recipe, encoded, device)
    vae = torch.nn.Module.to(trained_vae(folder, stage, recipe), device)
    vae.decoder.requires_grad_(True)
    whole_from = round(recipe.crop_share * steps)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT, 1, step])
        number = int(rng.integers(len(sampled)))
        source, latents = (("encoded", encoded.target), ("drawn", sampled))[step % 2]
        latents = latents[number]
        clip = pictures(number, recipe)
        target = clip.target(stage)
        weights = 1 + OBJECT_WEIGHT * (clip.amodal[:, :1] > 0) + recipe.of(stage, "hidden_weight") * clip.hidden
        if step < whole_from:
            (columns,) = hidden_windows(encoded.hidden[number][None], rng)
            cell = recipe.width // latents.shape[-1]
            pixels = slice(cell * columns[0], cell * (columns[-1] + 1))
            latents, target, weights = latents[..., columns], target[..., pixels], weights[..., pixels]
        inputs, expected, weight = (
            torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(device) for a in (latents, target, weights)
        )
        with torch.autocast(inputs.device.type, torch.bfloat16):
            decoded = vae.decode(inputs, num_frames=recipe.frames).sample
        squares = (decoded.float() - expected).square()
        return (weight * squares).sum() / (3 * weight.sum()), {f"mse_{source}": squares.detach().mean().item()}

    name, lr = f"decoder_{stage}", recipe.decoder_lr
    train(folder, name, vae.decoder, loss_of, steps=steps, lr=lr, ema=0.995, cooldown=recipe.cooldown)


def _sampled(folder: Path, stage: StageName, recipe: Recipe, encoded: Latents, device: str) -> NDArray[np.float16]:
    """Samples latents [N, T, 4, h, w] of the first scenes with the U-Net, or reads those sampled before."""
    file = folder / f"drawn_{stage}.npy"
    if not file.exists():
        unet = make_unet(recipe.seed, stage)
        load_average(unet, folder / f"{stage}.pt")
        set_attention(unet.eval().requires_grad_(False))
        torch.nn.Module.to(unet, device)
        count = min(recipe.decoder_scenes, recipe.of(stage, "scenes"))
        firsts = range(0, count, recipe.clips)
        parts = [_sample(unet, recipe, encoded, slice(first, min(first + recipe.clips, count))) for first in firsts]
        part = file.with_suffix(".part.npy")
        np.save(part, np.concatenate(parts))
        os.replace(part, file)
    return np.asarray(np.load(file), np.float16)


def _sample(unet: Any, recipe: Recipe, encoded: Latents, clips: slice) -> NDArray[np.float16]:
    device = next(unet.parameters()).device
    rng = np.random.default_rng([recipe.seed, _SALT, 0, clips.start])
    schedule = Schedule.of(karras_sigmas(int(rng.choice(_STEPS)), *SIGMA_RANGE))
    scale = float(rng.choice(_GUIDANCE))
    guided = is_guided((scale, scale))
    conditioning = encoded.conditioning[clips].astype(np.float32)
    embeddings = encoded.embeddings[clips].astype(np.float32)
    rows = np.stack([context_rows(e, "reference", guided) for e in embeddings])

    def velocity(x: Floats, step: int, conditioned: bool) -> Floats:
        inputs = np.concatenate([x, conditioning if conditioned else np.zeros_like(conditioning)], axis=2)
        log_sigma = np.full(len(x), np.log(schedule.hats[step]), np.float32)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            tensor = torch.from_numpy(inputs).to(device)
            predicted = velocities(unet, tensor, log_sigma, rows[:, -1 if conditioned else 0], "reference")
        return np.asarray(predicted.float().cpu().numpy())

    def denoise(x: Floats, step: int) -> Floats:
        sigma = schedule.hats[step]
        scaled = np.asarray(scale_input(x, sigma), np.float32)
        predicted = velocity(scaled, step, True)
        if guided:
            predicted = guide(velocity(scaled, step, False), predicted, np.float32(scale))
        return np.asarray(denoised_of(predicted, x, sigma), np.float32)

    start = rng.standard_normal(encoded.target[clips].shape, dtype=np.float32) * schedule.initial_scale
    return np.asarray(sample(denoise, start, schedule), np.float16)
