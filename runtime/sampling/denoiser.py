"""From a network that predicts v to a denoiser: EDM's preconditioning and classifier-free guidance.

The preconditioning is that of Karras et al. 2022, table 1, with sigma_data = 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array
from ..errors import InputError


def scale_input(x: Array, sigma: np.float32) -> Array:
    """Scales latents to the network's input: c_in x, with c_in = 1 / sqrt(sigma^2 + 1)."""
    return x / np.sqrt(sigma * sigma + np.float32(1.0))


def denoised_of(velocity: Array, x: Array, sigma: np.float32) -> Array:
    """Computes D = c_out F + c_skip x, with c_skip = 1 / (sigma^2 + 1) and c_out = -sigma / sqrt(sigma^2 + 1)."""
    variance = sigma * sigma + np.float32(1.0)
    return velocity * (-sigma / np.sqrt(variance)) + x / variance


def guidance_ramp(guidance: tuple[float, float], frames: int) -> NDArray[np.float32]:
    """Returns the guidance scale of each frame, linear from the first to the last: float32 [frames].

    Raises:
        InputError: a scale is not finite.
    """
    low, high = (float(g) for g in guidance)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"guidance {guidance} is not finite; expected two numbers.", field="guidance")
    return np.linspace(low, high, frames, dtype=np.float64).astype(np.float32)


def is_guided(guidance: tuple[float, float]) -> bool:
    """Returns whether a run needs the unconditional row: only if a scale exceeds 1."""
    return max(guidance) > 1.0


def guide(uncond: Array, cond: Array, scale: Array) -> Array:
    """Applies classifier-free guidance: `uncond + scale * (cond - uncond)`, with `scale` per frame."""
    return uncond + scale * (cond - uncond)
