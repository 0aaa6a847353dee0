"""Training a stage's U-Net: EDM with v-prediction, on latents that were encoded beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from amodal.runtime.bundle.manifest import ContextLayout, StageName
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
    """The trained U-Net of a stage, from `folder` as far as it got there.

    With sigma_data = 1, EDM's weight times c_out squared is 1, so that its loss is the plain square error of the
    v-prediction (Karras et al. 2022, eq. 8). It counts for more where the object is hidden (`Recipe.hidden_weight`),
    which the conditions tell, so that the best prediction stays what it was. One in `1 / recipe.dropout` clips loses
    conditions and context, as classifier-free guidance needs it. Each step draws a context layout, so that one set of
    weights serves all three. Half of the clips run backwards. Some steps see windows of half the width around hidden
    parts (`Recipe.window_share`): they cost half, and what they leave out is background mostly.
    """
    unet, latents = make_unet(recipe.seed, stage), Latents(folder, stage, recipe)
    set_attention(unet)
    torch.nn.Module.to(unet, device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([recipe.seed, _SALT[stage], step])
        chosen = rng.integers(len(latents.target), size=recipe.clips)
        conditioning, target, embeddings, hidden = (
            a[chosen].astype(np.float32)
            for a in (latents.conditioning, latents.target, latents.embeddings, latents.hidden)
        )
        backwards = rng.random(recipe.clips) < 0.5
        for array in (conditioning, target, embeddings, hidden):
            array[backwards] = array[backwards, ::-1]
        dropped = rng.random(recipe.clips) < recipe.dropout
        conditioning[dropped] = 0
        layout = _LAYOUTS[rng.integers(len(_LAYOUTS))]
        context = np.stack([_context(e, layout, not d) for e, d in zip(embeddings, dropped, strict=True)])
        if rng.random() < recipe.share_of(stage, "window_share"):
            columns = hidden_windows(hidden, rng)
            conditioning, target, hidden = (
                np.take_along_axis(a, columns[:, None, None, None, :], 4) for a in (conditioning, target, hidden)
            )

        log_sigma = rng.normal(recipe.sigma_mean, recipe.sigma_std, recipe.clips).astype(np.float32)
        sigma = np.exp(log_sigma)[:, None, None, None, None]
        noise = rng.standard_normal(target.shape, dtype=np.float32)
        noisy, velocity = noised(target, noise, sigma)
        sample = torch.from_numpy(np.concatenate([noisy, conditioning], 2)).to(device)
        with torch.autocast(sample.device.type, torch.bfloat16):
            predicted = velocities(unet, sample, log_sigma, context, layout)
        squares = (predicted.float() - torch.from_numpy(velocity).to(device)).square()
        weights = 1 + recipe.share_of(stage, "hidden_weight") * hidden
        squares = squares * torch.from_numpy(weights / weights.mean()).to(device)
        errors = squares.mean(dim=(1, 2, 3, 4))
        kept = ~dropped
        values = {
            f"loss_{name}": float(errors.detach().cpu().numpy()[part].mean())
            for name, part in (
                ("low", kept & (log_sigma < 0)),
                ("middle", kept & (log_sigma >= 0) & (log_sigma < 1.5)),
                ("high", kept & (log_sigma >= 1.5)),
            )
            if part.any()
        }
        return errors.mean(), values

    train(
        folder,
        stage,
        unet,
        loss_of,
        steps=recipe.of(stage, "steps"),
        lr=recipe.lr,
        ema=recipe.ema,
        cooldown=recipe.cooldown,
    )
    return unet


def hidden_windows(hidden: Floats, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.intp]]:
    """For each clip the columns [N, w // 2] of a window of half the width, about a hidden cell drawn by its share.

    Args:
        hidden: share of each cell that is hidden, [N, T, 1, h, w]; where nothing is, any column is as likely.
    """
    width = hidden.shape[-1]
    columns = hidden.sum(axis=(1, 2, 3), dtype=np.float64)
    columns[columns.sum(axis=1) == 0] = 1
    centres = np.array([rng.choice(width, p=c / c.sum()) for c in columns])
    starts = np.clip(centres - width // 4, 0, width - width // 2)
    return np.asarray(starts[:, None] + np.arange(width // 2))


def noised(target: Floats, noise: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """The network's input c_in (y + sigma n) and the v-prediction that denoises it to y (EDM, with sigma_data = 1).

    From D = c_skip x + c_out F = y: F = (n - sigma y) / sqrt(sigma^2 + 1).
    """
    scale = np.sqrt(sigma * sigma + np.float32(1))
    return (target + sigma * noise) / scale, (noise - sigma * target) / scale


def set_attention(unet: Any) -> None:
    """Attention as it is fastest on a CPU: plain products in bfloat16, and none where there is but one token."""
    plain = AttnProcessor()
    unet.set_attn_processor({name: _OneToken() if ".attn2." in name else plain for name in unet.attn_processors})


class _OneToken:
    """Attention over one token has the weight 1, whatever the query."""

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **options: Any) -> Tensor:
        if encoder_hidden_states.shape[1] > 1:
            return AttnProcessor()(attn, hidden_states, encoder_hidden_states, **options)
        constant: Tensor = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return constant.expand(hidden_states.shape)


def velocities(
    unet: Any, sample: Tensor, log_sigma: np.ndarray[Any, Any], context: np.ndarray[Any, Any], layout: ContextLayout
) -> Tensor:
    """v-predictions [N, T, 4, h, w] of clips at noise levels of their own.

    Args:
        sample: [N, T, 12, h, w], scaled latents and conditions.
        log_sigma: [N].
        context: [N, T, D].
    """
    count, frames = sample.shape[:2]
    rows = torch.from_numpy(context).to(sample.device)
    tokens = rows[:, None].expand(-1, frames, -1, -1) if layout == "sequence" else rows[:, :, None]
    time_ids = torch.tensor([[FPS - 1, MOTION_BUCKET, NOISE_AUGMENTATION]]).expand(count, -1).to(sample.device)
    velocity: Tensor = unet(
        sample,
        torch.from_numpy(0.25 * log_sigma).to(sample.device),
        UnrepeatedContext(tokens.flatten(0, 1)),
        time_ids,
        return_dict=False,
    )[0]
    return velocity


def _context(embeddings: np.ndarray[Any, Any], layout: ContextLayout, conditional: bool) -> np.ndarray[Any, Any]:
    """One clip's row of the context [T, D]: what guidance would hand the U-Net for that row."""
    return np.asarray(context_rows(embeddings, layout, guided=True)[int(conditional)])
