"""Classifier-free guidance, with a scale of its own for each frame."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


def guidance_ramp(guidance: tuple[float, float], frames: int) -> NDArray[np.float32]:
    """Guidance scale per frame, linear from the first to the last: float32 [frames].

    Raises:
        InputError: a scale is not finite.
    """
    low, high = (float(g) for g in guidance)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"guidance {guidance} is not finite; expected two numbers.", field="guidance")
    return np.linspace(low, high, frames, dtype=np.float64).astype(np.float32)


def is_guided(guidance: tuple[float, float]) -> bool:
    """Whether a run needs the unconditional row: only if a scale exceeds 1."""
    return max(guidance) > 1.0


def guide(uncond: Array, cond: Array, scale: Array) -> Array:
    """Classifier-free guidance: `uncond + scale * (cond - uncond)`, with `scale` per frame."""
    return uncond + scale * (cond - uncond)
