"""The EDM sampler (Karras et al. 2022): schedule, preconditioning, guidance and Euler steps with optional churn.

Written against the array API: `xp` is numpy, or CuPy on a GPU. Latents are float32 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NonFiniteError

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Floats: TypeAlias = NDArray[np.float32]
Callback: TypeAlias = Callable[[int, float, Array], None]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Floats:
    """Noise levels, from sigma_max down to sigma_min and a final 0 (EDM eq. 5).

    Returns:
        float32 [steps + 1], computed in float64.

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"{steps} steps were asked for; expected 1 or more.", field="steps")
    ramp = np.linspace(0.0, 1.0, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return np.append((high + ramp * (low - high)) ** rho, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Churn:
    """EDM's stochasticity (algorithm 2): fresh noise of a share `gamma` is added before a step.

    Attributes:
        s_churn: total amount; 0 is the deterministic sampler.
        s_tmin, s_tmax: noise levels between which it acts.
        s_noise: factor on the noise that is added.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if not (self.s_churn >= 0 and 0 <= self.s_tmin <= self.s_tmax and 0 <= self.s_noise < math.inf):
            raise InputError(
                f"churn {self.s_churn:g} from sigma {self.s_tmin:g} to {self.s_tmax:g}, noise {self.s_noise:g}: "
                "expected a total >= 0, noise levels MIN to MAX with 0 <= MIN <= MAX, and a finite noise >= 0.",
                field="churn",
            )

    def gammas(self, sigmas: Floats) -> Floats:
        """Relative increase of each step's sigma, float32 [steps]; at most sqrt(2) - 1."""
        steps = len(sigmas) - 1
        gamma = min(self.s_churn / steps, math.sqrt(2.0) - 1.0)
        inside = (sigmas[:-1] >= self.s_tmin) & (sigmas[:-1] <= self.s_tmax)
        return np.where(inside, np.float32(gamma), np.float32(0.0))


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a run.

    Attributes:
        sigmas: float32 [steps + 1], the last is 0.
        hats: float32 [steps], the level at which each step evaluates the denoiser: sigma (1 + gamma).
        s_noise: factor on churn's noise.
    """

    sigmas: Floats
    hats: Floats
    s_noise: float = 1.0

    @classmethod
    def of(cls, sigmas: Floats, churn: Churn | None = None) -> Schedule:
        """The schedule of `sigmas` with `churn`."""
        churn = churn or Churn()
        return cls(sigmas, sigmas[:-1] * (1 + churn.gammas(sigmas)), churn.s_noise)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.hats)

    def first(self, steps: int) -> Schedule:
        """The first `steps` of them alone."""
        return Schedule(self.sigmas[: steps + 1], self.hats[:steps], self.s_noise)

    @property
    def initial_scale(self) -> np.float32:
        """Factor on the unit noise that starts a run: sqrt(sigma_max^2 + 1), diffusers' `init_noise_sigma`."""
        return np.float32(np.sqrt(self.sigmas[0] ** 2 + np.float32(1.0)))


def guidance_ramp(guidance: tuple[float, float], frames: int) -> Floats:
    """Guidance per frame, linear from the first to the last: float32 [frames]."""
    low, high = (float(g) for g in guidance)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"guidance {guidance} is not finite; expected two numbers.", field="guidance")
    return np.linspace(low, high, frames, dtype=np.float64).astype(np.float32)


def is_guided(guidance: tuple[float, float]) -> bool:
    """Whether a run needs the unconditional row: only a maximum above 1 does."""
    return max(guidance) > 1.0


def guide(uncond: Array, cond: Array, scale: Array) -> Array:
    """Classifier-free guidance: `uncond + scale * (cond - uncond)`, with `scale` per frame."""
    return uncond + scale * (cond - uncond)


def scale_input(x: Array, sigma: np.float32) -> Array:
    """EDM's c_in with sigma_data = 1: x / sqrt(sigma^2 + 1)."""
    return x / np.sqrt(sigma * sigma + np.float32(1.0))


def denoised_of(velocity: Array, x: Array, sigma: np.float32) -> Array:
    """EDM's D = c_out F + c_skip x for a v-prediction.

    c_skip = 1 / (sigma^2 + 1) and c_out = -sigma / sqrt(sigma^2 + 1), with sigma_data = 1.
    """
    variance = sigma * sigma + np.float32(1.0)
    return velocity * (-sigma / np.sqrt(variance)) + x / variance


class Finiteness:
    """Whether everything stayed finite, without waiting for a device: flags that are read once, at the end.

    On the host what is not finite is reported at once.
    """

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._flags: list[tuple[Array, NonFiniteError]] = []

    def note(self, values: Array, error: NonFiniteError) -> None:
        """Remembers whether `values` are finite, and what to raise if not.

        Raises:
            NonFiniteError: they are not, on the host.
        """
        self._flags.append((self._xp.isfinite(values).all(), error))
        if self._xp is np:
            self.settle()

    def flags(self) -> Array:
        """What was noted, once or more, where it is, bool [n]: to be read together with something else."""
        return self._xp.stack([flag for flag, _ in self._flags])

    def settle(self, flags: NDArray[np.bool_] | None = None) -> None:
        """Reads all flags.

        Args:
            flags: they, on the host; None to fetch them.

        Raises:
            NonFiniteError: the first that was noted of what was not finite.
        """
        noted, self._flags = self._flags, []
        if flags is None and (not noted or bool(self._xp.stack([flag for flag, _ in noted]).all())):
            return
        read = (bool(flag) for flag, _ in noted) if flags is None else iter(flags.tolist())
        for fine, (_, error) in zip(read, noted, strict=True):
            if not fine:
                raise error


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
    """Euler's method from noise to a sample (EDM algorithm 2 without the second-order correction).

    Args:
        denoise: (x, step) -> D(x; schedule.hats[step]), the denoised x.
        latents: float32, unit noise times `schedule.initial_scale`.
        draw_noise: unit noise like `latents`, asked for only at steps with churn.
        callback: called after each step with (step, sigma, latents).
        finite: keeps whether latents were, for the caller to settle; None to have it settled before this returns.

    Returns:
        float32 latents at noise level 0.

    Raises:
        NonFiniteError: a latent was NaN or infinite after a step; names the step.
    """
    x = latents
    watched = Finiteness(xp) if finite is None else finite
    for step in range(schedule.steps):
        sigma, sigma_hat, sigma_next = schedule.sigmas[step], schedule.hats[step], schedule.sigmas[step + 1]

        # Raise the noise level temporarily.
        if sigma_hat > sigma:
            if draw_noise is None:
                raise InputError("churn needs a source of noise; pass draw_noise.")
            spread = np.sqrt(sigma_hat * sigma_hat - sigma * sigma) * np.float32(schedule.s_noise)
            x = x + draw_noise() * spread

        # Euler step from sigma_hat to sigma_next.
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported below, once
            denoised = denoise(x, step)
            slope = (x - denoised) / sigma_hat
            x = x + slope * (sigma_next - sigma_hat)

        watched.note(x, NonFiniteError(step, float(sigma)))
        if callback is not None:
            callback(step, float(sigma), x)

    if finite is None:
        watched.settle()
    return x
