"""The sampling loop of EDM (Karras et al. 2022, algorithm 2): Euler steps with optional churn.

Written against the array API: `xp` is numpy, or CuPy on a GPU. Latents are float32 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..arrays.interop import Array
from ..errors import InputError, NonFiniteError
from .finiteness import Finiteness
from .schedule import Schedule

Callback: TypeAlias = Callable[[int, float, Array], None]


def sample(
    denoise: Callable[[Array, int], Array],
    latents: Array,
    schedule: Schedule,
    *,
    draw_noise: Callable[[], Array] | None = None,
    callback: Callback | None = None,
    finite: Finiteness | None = None,
    xp: Any = np,
) -> Array:
    """Integrates from noise to a sample (EDM algorithm 2 without the second-order correction).

    Args:
        denoise: (x, step) -> D(x; schedule.hats[step]), the denoised x.
        latents: float32, unit noise times `schedule.initial_scale`.
        draw_noise: draws unit noise of the latents' shape; called only at steps with churn.
        callback: called after each step with (step, sigma, latents).
        finite: records whether the latents of each step are finite, for the caller to raise; None to raise here.

    Returns:
        float32 latents at noise level 0.

    Raises:
        NonFiniteError: a latent was NaN or infinite after a step.
        InputError: the schedule has churn and there is no `draw_noise`.
    """
    x = latents
    watched = Finiteness(xp) if finite is None else finite
    for step in range(schedule.steps):
        sigma, sigma_hat, sigma_next = schedule.sigmas[step], schedule.hats[step], schedule.sigmas[step + 1]

        # Increase the noise temporarily.
        if sigma_hat > sigma:
            if draw_noise is None:
                raise InputError("churn needs a source of noise; pass draw_noise.")
            x = x + draw_noise() * (np.sqrt(sigma_hat * sigma_hat - sigma * sigma) * np.float32(schedule.s_noise))

        # Euler step.
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported below, once
            d_cur = (x - denoise(x, step)) / sigma_hat
            x = x + d_cur * (sigma_next - sigma_hat)

        watched.note(x, NonFiniteError(step, float(sigma)))
        if callback is not None:
            callback(step, float(sigma), x)

    if finite is None:
        watched.raise_if_not_finite()
    return x
