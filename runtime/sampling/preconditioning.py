"""EDM's preconditioning of a network that predicts v, with sigma_data = 1 (Karras et al. 2022, table 1)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


def scale_input(x: Array, sigma: np.float32) -> Array:
    """The network's input c_in x, with c_in = 1 / sqrt(sigma^2 + 1)."""
    return x / np.sqrt(sigma * sigma + np.float32(1.0))


def denoised_of(velocity: Array, x: Array, sigma: np.float32) -> Array:
    """The denoised D = c_out F + c_skip x, with c_skip = 1 / (sigma^2 + 1) and c_out = -sigma / sqrt(sigma^2 + 1)."""
    variance = sigma * sigma + np.float32(1.0)
    return velocity * (-sigma / np.sqrt(variance)) + x / variance
