"""Training of a stage's U-Net: EDM with v-prediction, on latents that are encoded beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor

from amodal.runtime.families.diffusion_vas.config import ContextLayout, StageName
from amodal.runtime.families.diffusion_vas.context import context_rows

from ..families.diffusion_vas.plan import MOTION_BUCKET, NOISE_AUGMENTATION
from ..families.diffusion_vas.reference import UnrepeatedContext
from .data import Floats
from .latents import Latents
from .loop import train
from .recipe import Recipe, make_unet

FPS = 8.0

_SALT = {"segment": 303, "complete": 404}
_LAYOUTS: tuple[ContextLayout, ...] = ("reference", "reference", "aligned", "sequence")


def train_unet(folder: Path, stage: StageName, recipe: Recipe, device: str = "cpu") -> Any:
    """Trains a stage's U-Net, continuing from what is in `folder`.

    With sigma_data = 1, EDM's weight times c_out squared is 1, so that its loss is the plain square error of the
    v-prediction (Karras et al. 2022, eq. 8). It counts for more where the object is hidden (`Recipe.hidden_weight`);
    the conditions show where, so that the best prediction stays the same. One in `1 / recipe.dropout` clips loses
    conditions and context, for classifier-free guidance. Each step draws a context layout, so that one set of weights
    serves all three. Half of the clips run backwards. Some steps see windows of half the width around hidden parts
    (`Recipe.window_share`): they cost half, and leave out mostly background.
    """
    unet, latents = make_unet(recipe.seed, stage), Latents(folder, stage, recipe)
    set_attention(unet)
    torch.nn.Module.to(unet, device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT[stage], step])
        batch = _draw_batch(rng, latents, stage, recipe)
        log_sigma = rng.normal(recipe.sigma_mean, recipe.sigma_std, recipe.clips).astype(np.float32)
        sigma = np.exp(log_sigma)[:, None, None, None, None]
        noise = rng.standard_normal(batch.target.shape, dtype=np.float32)
        noisy, velocity = noised(batch.target, noise, sigma)
        sample = torch.from_numpy(np.concatenate([noisy, batch.conditioning], 2)).to(device)
        with torch.autocast(sample.device.type, torch.bfloat16):
            predicted = velocities(unet, sample, log_sigma, batch.context, batch.layout)
        squares = (predicted.float() - torch.from_numpy(velocity).to(device)).square()
        weights = 1 + recipe.of(stage, "hidden_weight") * batch.hidden
        squares = squares * torch.from_numpy(weights / weights.mean()).to(device)
        errors = squares.mean(dim=(1, 2, 3, 4))
        detached = errors.detach().cpu().numpy()
        values: dict[str, float] = {}
        for name, least, limit in (("low", -np.inf, 0), ("middle", 0, 1.5), ("high", 1.5, np.inf)):
            part = ~batch.dropped & (log_sigma >= least) & (log_sigma < limit)
            if part.any():
                values[f"loss_{name}"] = float(detached[part].mean())
        return errors.mean(), values

    steps = recipe.of(stage, "steps")
    train(folder, stage, unet, loss_of, steps=steps, lr=recipe.lr, ema=recipe.ema, cooldown=recipe.cooldown)
    return unet


class _Batch(NamedTuple):
    """Clips of `Latents`, with their contexts [N, T, D], and which of them have lost their conditions."""

    conditioning: Floats
    target: Floats
    hidden: Floats
    context: Floats
    layout: ContextLayout
    dropped: NDArray[np.bool_]


def _draw_batch(rng: np.random.Generator, latents: Latents, stage: StageName, recipe: Recipe) -> _Batch:
    chosen = rng.integers(len(latents.target), size=recipe.clips)
    conditioning, target, embeddings, hidden = (
        array[chosen].astype(np.float32)
        for array in (latents.conditioning, latents.target, latents.embeddings, latents.hidden)
    )
    backwards = rng.random(recipe.clips) < 0.5
    for array in (conditioning, target, embeddings, hidden):
        array[backwards] = array[backwards, ::-1]
    dropped = rng.random(recipe.clips) < recipe.dropout
    conditioning[dropped] = 0
    layout = _LAYOUTS[rng.integers(len(_LAYOUTS))]
    context = np.stack([_context(e, layout, not d) for e, d in zip(embeddings, dropped, strict=True)])
    if rng.random() < recipe.of(stage, "window_share"):
        columns = hidden_windows(hidden, rng)[:, None, None, None, :]
        conditioning, target, hidden = (np.take_along_axis(a, columns, 4) for a in (conditioning, target, hidden))
    return _Batch(conditioning, target, hidden, context, layout, dropped)


def hidden_windows(hidden: Floats, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draws a window of half the width around a hidden cell of each clip; returns its columns [N, w // 2].

    Args:
        hidden: hidden share of each cell [N, T, 1, h, w], its weight in the draw; all columns weigh the same if all 0.
    """
    width = hidden.shape[-1]
    columns = hidden.sum(axis=(1, 2, 3), dtype=np.float64)
    columns[columns.sum(axis=1) == 0] = 1
    centres = np.array([rng.choice(width, p=c / c.sum()) for c in columns])
    starts = np.clip(centres - width // 4, 0, width - width // 2)
    return np.asarray(starts[:, None] + np.arange(width // 2))


def noised(target: Floats, noise: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """Returns the network's input c_in (y + sigma n), and the v-prediction that denoises it to y (sigma_data = 1).

    From D = c_skip x + c_out F = y: F = (n - sigma y) / sqrt(sigma^2 + 1).
    """
    scale = np.sqrt(sigma * sigma + np.float32(1))
    return (target + sigma * noise) / scale, (noise - sigma * target) / scale


def set_attention(unet: Any) -> None:
    """Sets the attention that is fastest on a CPU: plain products in bfloat16, and none over a single token."""
    plain = AttnProcessor()
    unet.set_attn_processor({name: _OneToken() if ".attn2." in name else plain for name in unet.attn_processors})


class _OneToken:
    """Attention that has the weight 1 over a single token, whatever the query."""

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **options: Any) -> Tensor:
        if encoder_hidden_states.shape[1] > 1:
            return AttnProcessor()(attn, hidden_states, encoder_hidden_states, **options)
        constant: Tensor = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return constant.expand(hidden_states.shape)


def velocities(unet: Any, sample: Tensor, log_sigma: Floats, context: Floats, layout: ContextLayout) -> Tensor:
    """Predicts v [N, T, 4, h, w] of clips, each with its own noise level.

    Args:
        sample: scaled latents and conditions [N, T, 12, h, w].
        log_sigma: [N].
        context: [N, T, D].
    """
    count, frames = sample.shape[:2]
    rows = torch.from_numpy(context).to(sample.device)
    tokens = rows[:, None].expand(-1, frames, -1, -1) if layout == "sequence" else rows[:, :, None]
    time_ids = torch.tensor([[FPS - 1, MOTION_BUCKET, NOISE_AUGMENTATION]]).expand(count, -1).to(sample.device)
    timestep, unrepeated = torch.from_numpy(0.25 * log_sigma).to(sample.device), UnrepeatedContext(tokens.flatten(0, 1))
    velocity: Tensor = unet(sample, timestep, unrepeated, time_ids, return_dict=False)[0]
    return velocity


def _context(embeddings: Floats, layout: ContextLayout, conditional: bool) -> Floats:
    """Returns the context [T, D] of one CFG row of a clip."""
    return np.asarray(context_rows(embeddings, layout, guided=True)[int(conditional)])
