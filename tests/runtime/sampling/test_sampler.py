"""The sampler's parts against EDM's formulas, and its loop against problems whose solution is known."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import AmodalError, InputError, NonFiniteError
from amodal.runtime.sampling.denoiser import denoised_of, guidance_ramp, guide, is_guided, scale_input
from amodal.runtime.sampling.sampler import sample
from amodal.runtime.sampling.schedule import Churn, Schedule, karras_sigmas

SVD = (0.002, 700.0)


def slow_sigmas(steps: int, low: float, high: float, rho: float) -> list[float]:
    """EDM eq. 5, one level at a time, in float64."""
    if steps == 1:
        return [high, 0.0]
    levels = []
    for i in range(steps):
        root = high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))
        levels.append(root**rho)
    return [*levels, 0.0]


def slow_edm(
    denoise: Any, x: Any, sigmas: list[float], churn: Churn, noise: list[Any]
) -> tuple[list[Any], list[float], int]:
    """EDM algorithm 2 in float64, line by line, without lines 6 to 8 (the second-order correction).

    Returns the x after every step, the levels at which the denoiser was evaluated, and how many noises were used.
    """
    x, used, trace, levels = np.asarray(x, np.float64), 0, [], []
    count = len(sigmas) - 1
    for i in range(count):
        t, t_next = sigmas[i], sigmas[i + 1]
        gamma = min(churn.s_churn / count, math.sqrt(2) - 1) if churn.s_tmin <= t <= churn.s_tmax else 0.0
        t_hat = t + gamma * t
        if gamma > 0:
            x = x + math.sqrt(t_hat**2 - t**2) * churn.s_noise * noise[used]
            used += 1
        d = (x - denoise(x, t_hat)) / t_hat
        x = x + (t_next - t_hat) * d
        trace.append(x)
        levels.append(t_hat)
    return trace, levels, used


def at_hats(schedule: Schedule, denoise: Any) -> Any:
    """A denoiser of (x, sigma) as the sampler calls it, with the step's number."""
    return lambda x, step: denoise(x, float(schedule.hats[step])).astype(np.float32)


def run(denoise: Any, x: Any, schedule: Schedule, **options: Any) -> Any:
    return sample(at_hats(schedule, denoise), np.asarray(x, np.float32), schedule, **options)


# Schedule.


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25])
@pytest.mark.parametrize(("low", "high", "rho"), [(*SVD, 7.0), (0.01, 80.0, 5.0)])
def test_the_schedule_is_eq_5_of_edm_and_ends_at_zero(steps: int, low: float, high: float, rho: float) -> None:
    sigmas = karras_sigmas(steps, low, high, rho)
    assert sigmas.dtype == np.float32
    np.testing.assert_allclose(sigmas, slow_sigmas(steps, low, high, rho), rtol=1e-7)
    assert sigmas[0] == np.float32(high)
    assert sigmas[-1] == 0
    assert (np.diff(sigmas) < 0).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
@pytest.mark.parametrize("steps", [2, 10, 25])
def test_the_schedule_and_the_initial_scale_are_those_of_diffusers_to_the_last_bit(steps: int) -> None:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=SVD[0],
        sigma_max=SVD[1],
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    sigmas = karras_sigmas(steps, *SVD)
    np.testing.assert_array_equal(sigmas, scheduler.sigmas.numpy())
    assert Schedule.of(sigmas).initial_scale == np.float32(scheduler.init_noise_sigma)


@pytest.mark.parametrize("steps", [0, -3])
def test_fewer_than_one_step_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"^{steps} steps: "):
        karras_sigmas(steps, *SVD)


# Preconditioning.


def test_the_denoised_of_the_true_velocity_is_the_clean_signal() -> None:
    # v-prediction (Salimans and Ho 2022): z = alpha y + beta n has the velocity alpha n - beta y. Noise of level
    # sigma on y, scaled to unit variance, is such a z with alpha = 1 / sqrt(sigma^2 + 1), beta = sigma alpha.
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 1000))
    for sigma in (0.002, 0.1, 1.0, 30.0, 700.0):
        x = clean + sigma * noise
        alpha = 1 / math.sqrt(sigma**2 + 1)
        beta = sigma * alpha
        np.testing.assert_allclose(scale_input(x, np.float64(sigma)), alpha * clean + beta * noise, rtol=1e-12)
        velocity = alpha * noise - beta * clean
        np.testing.assert_allclose(denoised_of(velocity, x, np.float64(sigma)), clean, rtol=1e-9, atol=1e-9)


def test_the_preconditioning_has_edms_coefficients_for_unit_data() -> None:
    # EDM table 1, with sigma_data = 1 and the velocity's sign: D = c_skip x + c_out F(c_in x).
    for sigma in map(np.float32, (0.002, 0.5, 1.0, 80.0, 700.0)):
        s = float(sigma)
        one, zero = np.float32([1]), np.float32([0])
        assert scale_input(one, sigma)[0] == pytest.approx(1 / math.sqrt(1 + s * s), rel=1e-6)
        assert denoised_of(zero, one, sigma)[0] == pytest.approx(1 / (s * s + 1), rel=1e-6)
        assert denoised_of(one, zero, sigma)[0] == pytest.approx(-s / math.sqrt(1 + s * s), rel=1e-6)


def test_the_preconditioning_keeps_float32() -> None:
    x, sigma = np.ones(3, np.float32), np.float32(1.5)
    assert scale_input(x, sigma).dtype == denoised_of(x, x, sigma).dtype == np.float32


# Guidance.


@pytest.mark.parametrize(("low", "high", "frames"), [(1.0, 2.5, 14), (1.5, 1.5, 25), (3.0, 1.0, 2), (1.2, 9.0, 1)])
def test_guidance_goes_linearly_from_the_first_frame_to_the_last(low: float, high: float, frames: int) -> None:
    ramp = guidance_ramp((low, high), frames)
    expected = [low + (high - low) * f / (frames - 1) if frames > 1 else low for f in range(frames)]
    assert ramp.dtype == np.float32
    np.testing.assert_allclose(ramp, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("guidance", "guided"),
    [((1.0, 1.0), False), ((0.0, 0.5), False), ((1.0, 1.01), True), ((2.0, 0.5), True), ((-3.0, 1.0), False)],
)
def test_only_a_maximum_above_one_needs_the_unconditional_row(guidance: tuple[float, float], guided: bool) -> None:
    assert is_guided(guidance) is guided


def test_guidance_moves_each_frame_away_from_the_unconditional_one_by_its_own_scale() -> None:
    uncond, cond = np.float32([[1, 1, 1]]), np.float32([[3, 3, 3]])
    np.testing.assert_array_equal(guide(uncond, cond, np.float32([0, 1, 2.5])), [[1, 3, 6]])


@pytest.mark.parametrize("guidance", [(1.0, math.inf), (math.nan, 1.5)])
def test_guidance_that_is_not_finite_is_refused(guidance: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="guidance"):
        guidance_ramp(guidance, 3)


# Euler.


def test_a_denoiser_that_knows_the_answer_gets_there() -> None:
    answer = np.float32([0.3, -2.0])
    for steps in (1, 5):
        schedule = Schedule.of(karras_sigmas(steps, *SVD))
        got = run(lambda x, sigma: answer, [500.0, -900.0], schedule)
        np.testing.assert_allclose(got, answer, atol=1e-4)  # float32, from 900 down


def test_every_step_of_a_linear_denoiser_multiplies_by_what_euler_says() -> None:
    # Data of deviation s: the best denoiser is s^2 / (s^2 + sigma^2) x, and the slope sigma x / (s^2 + sigma^2).
    s = 0.5
    schedule = Schedule.of(karras_sigmas(12, *SVD))
    seen: list[float] = []
    run(
        lambda x, sigma: s**2 / (s**2 + sigma**2) * x,
        [700.0],
        schedule,
        callback=lambda step, sigma, x: seen.append(float(x[0])),
    )
    x, expected = 700.0, []
    levels = slow_sigmas(12, *SVD, 7.0)
    for now, then in pairwise(levels):
        x = x * (1 + (then - now) * now / (s**2 + now**2))
        expected.append(x)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_euler_converges_to_the_known_solution_at_first_order() -> None:
    # dx / dsigma = sigma x / (s^2 + sigma^2) has x proportional to sqrt(s^2 + sigma^2).
    s, start = 0.5, 80.0
    exact = start * s / math.sqrt(s**2 + 80.0**2)

    def error(steps: int) -> float:
        schedule = Schedule.of(karras_sigmas(steps, 0.002, 80.0))
        got = run(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, [start], schedule)
        return abs(float(got[0]) - exact) / exact

    errors = [error(steps) for steps in (50, 100, 200)]
    assert errors[-1] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.2)


# Churn.


def nonlinear(x: Any, sigma: float) -> Any:
    return np.tanh(x / (1 + sigma)) + 0.1 * np.roll(x, 1) / (1 + sigma**2)


CHURNS = [
    Churn(s_churn=4.0),
    Churn(s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003),
    Churn(s_churn=1e6, s_tmin=1.0),
    Churn(s_churn=2.0, s_tmax=10.0, s_noise=0.0),
]


@pytest.mark.parametrize("churn", CHURNS, ids=str)
def test_churn_is_algorithm_2_of_edm_step_by_step(churn: Churn) -> None:
    rng = np.random.default_rng(1)
    start, noise = rng.standard_normal(16) * 80, list(rng.standard_normal((8, 16)))
    sigmas = karras_sigmas(8, 0.002, 80.0)
    schedule = Schedule.of(sigmas, churn)
    trace, levels, used = slow_edm(nonlinear, start, [float(s) for s in sigmas], churn, noise)
    assert 0 < used <= 8

    drawn = iter(noise)
    seen: list[Any] = []
    result = run(
        nonlinear,
        start,
        schedule,
        draw_noise=lambda: next(drawn).astype(np.float32),
        callback=lambda step, sigma, x: seen.append(x),
    )
    np.testing.assert_allclose(schedule.hats, levels, rtol=1e-6)
    assert len(list(drawn)) == 8 - used, "as many draws as the algorithm makes"
    np.testing.assert_allclose(seen, trace, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(result, seen[-1])


def test_no_noise_is_drawn_where_gamma_is_zero() -> None:
    def never() -> Any:
        raise AssertionError("noise was drawn")

    sigmas = karras_sigmas(5, *SVD)
    for churn in (None, Churn(), Churn(s_churn=0.0, s_noise=2.0), Churn(s_churn=9.0, s_tmin=701.0)):
        schedule = Schedule.of(sigmas, churn)
        np.testing.assert_array_equal(schedule.hats, sigmas[:-1])
        run(nonlinear, np.ones(4), schedule, draw_noise=never)


def test_gamma_acts_between_its_levels_and_is_capped() -> None:
    sigmas = np.float32([8, 4, 2, 1, 0])
    np.testing.assert_allclose(Churn(s_churn=0.8, s_tmin=2.0, s_tmax=4.0).gammas(sigmas), [0, 0.2, 0.2, 0], rtol=1e-6)
    np.testing.assert_allclose(Churn(s_churn=100.0).gammas(sigmas), [math.sqrt(2) - 1] * 4, rtol=1e-6)


def test_churn_without_a_source_of_noise_is_refused() -> None:
    with pytest.raises(InputError, match="draw_noise"):
        run(nonlinear, np.ones(4), Schedule.of(karras_sigmas(3, *SVD), Churn(s_churn=1.0)))


@pytest.mark.parametrize(
    "settings",
    [
        {"s_churn": -1.0},
        {"s_churn": math.nan},
        {"s_tmin": -0.1},
        {"s_tmin": 2.0, "s_tmax": 1.0},
        {"s_tmax": math.nan},
        {"s_noise": -1.0},
        {"s_noise": math.nan},
        {"s_noise": math.inf},
    ],
)
def test_settings_that_are_no_churn_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a total >= 0"):
        Churn(**settings)


# Callback and failures.


def test_the_callback_sees_every_step_with_its_sigma_before_churn() -> None:
    sigmas = karras_sigmas(4, *SVD)
    seen: list[tuple[int, float, Any]] = []
    result = run(
        nonlinear,
        np.ones(3),
        Schedule.of(sigmas, Churn(s_churn=2.0)),
        draw_noise=lambda: np.ones(3, np.float32),
        callback=lambda *event: seen.append(event),
    )
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert [sigma for _, sigma, _ in seen] == [float(s) for s in sigmas[:-1]]
    assert all(latents.dtype == np.float32 for _, _, latents in seen)
    np.testing.assert_array_equal(seen[-1][2], result)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_latent_that_is_not_finite_stops_the_run_and_names_the_step(poison: float) -> None:
    schedule = Schedule.of(karras_sigmas(6, *SVD))
    steps: list[int] = []

    def denoise(x: Any, step: int) -> Any:
        steps.append(step)
        return x if step < 2 else np.where(np.arange(x.size) == 1, np.float32(poison), x)

    with pytest.raises(NonFiniteError, match="after step 2") as caught:
        sample(denoise, np.ones(4, np.float32), schedule)
    assert caught.value.step == 2
    assert caught.value.sigma == float(schedule.sigmas[2])
    assert isinstance(caught.value, AmodalError)
    assert steps == [0, 1, 2], "nothing is computed after it"


def test_on_a_device_the_flags_are_read_once_at_the_end_and_still_name_the_first_step() -> None:
    read: list[int] = []

    class Flag:
        def __init__(self, step: int, finite: bool) -> None:
            self.step, self.finite = step, finite

        def __bool__(self) -> bool:
            read.append(self.step)
            return self.finite

    schedule = Schedule.of(karras_sigmas(5, *SVD))
    steps: list[int] = []
    device = SimpleNamespace(
        isfinite=lambda x: SimpleNamespace(all=lambda: Flag(steps[-1], bool(np.isfinite(x).all()))),
        stack=lambda flags: SimpleNamespace(all=lambda: Flag(-1, all(flag.finite for flag in flags))),
    )

    def denoise(x: Any, step: int) -> Any:
        assert not read, "the loop waited for the host"
        steps.append(step)
        return x * np.float32(math.nan if step == 3 else 0.5)

    with pytest.raises(NonFiniteError, match="after step 3"):
        sample(denoise, np.ones(4, np.float32), schedule, xp=device)
    assert steps == [0, 1, 2, 3, 4]
    assert read == [-1, 0, 1, 2, 3], "all at once, and one by one only when something is wrong"


def test_the_sampler_leaves_the_latents_it_was_handed_alone() -> None:
    start = np.ones(4, np.float32)
    run(nonlinear, start, Schedule.of(karras_sigmas(3, *SVD)))
    np.testing.assert_array_equal(start, np.ones(4))
