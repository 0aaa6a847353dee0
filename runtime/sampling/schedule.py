"""Noise levels of the EDM sampler (Karras et al. 2022): the schedule of eq. 5 and the churn of algorithm 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Floats: TypeAlias = NDArray[np.float32]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Floats:
    """Computes the noise levels from sigma_max down to sigma_min, then 0 (EDM eq. 5): float32 [steps + 1].

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"{steps} steps: expected 1 or more.", field="steps")
    ramp = np.linspace(0.0, 1.0, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return np.append((high + ramp * (low - high)) ** rho, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Churn:
    """EDM's stochasticity (algorithm 2): fresh noise before a step, which raises its sigma by a share gamma.

    Attributes:
        s_churn: total amount; 0 is the deterministic sampler.
        s_tmin, s_tmax: lowest and highest sigma at which noise is added.
        s_noise: factor on the added noise.
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
        """Returns the relative increase of each step's sigma: float32 [steps], at most sqrt(2) - 1."""
        steps = len(sigmas) - 1
        gamma = min(self.s_churn / steps, math.sqrt(2.0) - 1.0)
        inside = (sigmas[:-1] >= self.s_tmin) & (sigmas[:-1] <= self.s_tmax)
        return np.where(inside, np.float32(gamma), np.float32(0.0))


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a run.

    Attributes:
        sigmas: float32 [steps + 1], the last is 0.
        hats: float32 [steps], sigma (1 + gamma), at which each step evaluates the denoiser.
        s_noise: factor on the noise that churn adds.
    """

    sigmas: Floats
    hats: Floats
    s_noise: float = 1.0

    @classmethod
    def of(cls, sigmas: Floats, churn: Churn | None = None) -> Schedule:
        """Returns the schedule of `sigmas`, raised by `churn`."""
        churn = churn or Churn()
        return cls(sigmas, sigmas[:-1] * (1 + churn.gammas(sigmas)), churn.s_noise)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.hats)

    def first(self, steps: int) -> Schedule:
        """Returns the first `steps` steps of the schedule."""
        return Schedule(self.sigmas[: steps + 1], self.hats[:steps], self.s_noise)

    @property
    def initial_scale(self) -> np.float32:
        """Factor on the unit noise that starts a run: sqrt(sigma_max^2 + 1), diffusers' `init_noise_sigma`."""
        return np.float32(np.sqrt(self.sigmas[0] ** 2 + np.float32(1.0)))
