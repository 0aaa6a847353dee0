"""A stage, whole and in its four functions, beside the same written as one plain loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.runtime.errors import InputError, NonFiniteError
from amodal.runtime.execution.components import Components
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.families.diffusion_vas.stage import (
    Conditions,
    Stage,
    condition,
    decode,
    denoise,
    encode,
    run_stage,
)
from amodal.runtime.sampling.finiteness import Finiteness
from amodal.runtime.sampling.noise import NoiseStream
from amodal.runtime.sampling.schedule import Churn

FRAMES, SIZE, STEPS = 3, (64, 64), 3


@pytest.fixture(scope="module")
def components(toy_bundle: Path) -> Iterator[Components]:
    with amodal.load(toy_bundle, threads=1) as model:
        yield model.session.components


def pictures(seed: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (FRAMES, 3, *SIZE)).astype(np.float32)


def conditions() -> Conditions:
    return Conditions(pictures(0), pictures(1))


def stage_of(components: Components, **settings: Any) -> Stage:
    return Stage(components, "segment", Settings(**{"steps": STEPS, **settings}))


def plainly(stage: Stage, images: Any, rgb_images: Any, seed: int) -> tuple[Any, Any]:
    """The latents and pictures of one sample: EDM's Euler sampler (Karras et al. 2022), step by step in float64."""
    config, settings, keys = stage.config, stage.settings, stage.keys

    def call(role: str, **inputs: Any) -> Any:
        arrays = {name: np.asarray(array, np.float32) for name, array in inputs.items()}
        with stage.components.use(keys[role]) as component:
            return component(arrays)

    noise = NoiseStream(seed)
    drawn = [noise.randn((FRAMES, 1, 3, *SIZE))[:, 0] for _ in range(2)]
    h, w = config.latent_size
    x = noise.randn((1, FRAMES, config.latent_channels, h, w)).astype(np.float64)

    from amodal.runtime.pictures.images import clip_pixels

    clip = config.image_encoder
    embeddings = [
        call("image_encoder", pixels=clip_pixels(images[i : i + 1], clip.side, clip.mean, clip.std))["embeddings"][0]
        for i in range(FRAMES)
    ]
    latents = []
    for frames, added in zip((images, rgb_images), drawn, strict=True):
        # Diffusion-VAS hands frames in [-1, 1] to a pipeline that expects [0, 1], which maps them to [-3, 1] and back.
        noisy = (frames + 1) / 2 * 2 - 1 + added * config.noise_augmentation
        latents.append([call("vae_encoder", frames=noisy[i : i + 1])["latents"][0] for i in range(FRAMES)])
    joined = np.concatenate([np.array(one) for one in latents], axis=1)[None]
    levels, steps = config.scheduler, settings.steps
    ramp = np.linspace(0, 1, steps)
    low, high = levels.sigma_min ** (1 / levels.rho), levels.sigma_max ** (1 / levels.rho)
    sigmas = [*((high + ramp * (low - high)) ** levels.rho), 0.0]
    # In the `reference` layout rows of the context are zero and embedding by turns, cut in two halves.
    flat = [row for e in embeddings for row in (np.zeros_like(e), e)]
    context = np.array(flat).reshape(2, FRAMES, -1)
    ids = [settings.fps - 1, config.motion_bucket, config.noise_augmentation]
    constants = dict(call("unet_conditioner", context=context, sigmas=sigmas[:-1], time_ids=ids))
    table = constants.pop("time_table")
    scales = np.linspace(*settings.guidance, FRAMES).reshape(1, -1, 1, 1, 1)
    x *= math.sqrt(sigmas[0] ** 2 + 1)
    for step, sigma in enumerate(sigmas[:-1]):
        rows = []
        for row in range(2):
            inputs = {name: value[row : row + 1] for name, value in constants.items()}
            conditioning = joined if row else np.zeros_like(joined)
            scaled = x / math.sqrt(sigma**2 + 1)
            made = call("unet", latents=scaled, conditioning=conditioning, time=table[step], **inputs)
            rows.append(made["velocity"].astype(np.float64))
        velocity = rows[0] + scales * (rows[1] - rows[0])
        denoised = x / (sigma**2 + 1) - velocity * sigma / math.sqrt(sigma**2 + 1)
        x = x + (x - denoised) / sigma * (sigmas[step + 1] - sigma)
    chunk = config.decode_chunk
    decoded = [
        call("vae_decoder", latents=x[0, i : i + chunk] / config.scaling_factor)["frames"]
        for i in range(0, FRAMES, chunk)
    ]
    shown = np.clip(np.concatenate(decoded) / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
    return x, np.rint(shown * 255)


def by_hand(stage: Stage, seeds: list[int]) -> tuple[Any, Any, Any, Any]:
    encoded = encode(stage, conditions(), [NoiseStream(seed) for seed in seeds])
    constants = condition(stage, encoded.embeddings)
    finite = Finiteness(stage.xp)
    latents = denoise(stage, encoded.samples, constants, None, finite)
    frames = decode(stage, latents, finite)
    finite.raise_if_not_finite()
    return encoded, constants, latents, frames


@pytest.mark.parametrize("guidance", [(1.5, 1.5), (1.2, 3.0)])
def test_a_stage_is_what_a_plain_loop_computes(components: Components, guidance: Any) -> None:
    stage, latents = stage_of(components, guidance=guidance), []
    (found,) = run_stage(
        stage, conditions(), [NoiseStream(5)], lambda step, sigma, x: latents.append(np.array(x)), None
    )
    expected, shown = plainly(stage, pictures(0), pictures(1), 5)
    assert len(latents) == STEPS
    # Networks with random weights amplify rounding: 1e-5 to 7e-5 were seen, and with the CPU kernels, whose Winograd
    # convolutions are right to 3e-6, up to 3e-4. A step that is computed otherwise is off by more than 1e-2.
    assert np.linalg.norm(latents[-1] - expected[0]) <= 1e-3 * np.linalg.norm(expected)
    assert found.frames.dtype == np.uint8
    assert np.abs(found.frames - shown).max() <= 1
    assert shown.std() > 5, "pictures that could be told apart"


def test_the_four_functions_are_the_whole_stage(components: Components) -> None:
    stage = stage_of(components)
    *_, frames = by_hand(stage, [5, 6])
    whole = run_stage(stage, conditions(), [NoiseStream(5), NoiseStream(6)])
    for one, output in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(one, output.frames)


def test_what_is_kept_is_used_again_with_the_same_bits(components: Components) -> None:
    stage = stage_of(components)
    encoded, constants, latents, _ = by_hand(stage, [5])
    kept = {name: np.array(value) for name, value in constants.items()}
    for _ in range(2):
        again = denoise(stage, encoded.samples, constants, None, Finiteness(stage.xp))
        np.testing.assert_array_equal(again[0], latents[0])
    for name, value in kept.items():
        np.testing.assert_array_equal(constants[name], value)
    other = encode(stage, conditions(), [NoiseStream(6)])
    np.testing.assert_array_equal(other.embeddings, encoded.embeddings)
    mixed = denoise(stage, [*encoded.samples, *other.samples], constants, None, Finiteness(stage.xp))
    np.testing.assert_array_equal(mixed[0], latents[0])
    assert not np.array_equal(mixed[1], latents[0])


def test_noise_is_drawn_in_the_reference_order_and_streams_are_left_alone(components: Components) -> None:
    stage, stream, twin = stage_of(components), NoiseStream(5), NoiseStream(5)
    encoded = encode(stage, conditions(), [stream])
    for _ in range(2):
        twin.randn((FRAMES, 1, 3, *SIZE))
    start = twin.randn(encoded.samples[0].start.shape)
    np.testing.assert_array_equal(encoded.samples[0].start, start)
    np.testing.assert_array_equal(encoded.samples[0].stream.randn((4,)), twin.randn((4,)))
    np.testing.assert_array_equal(stream.randn((4,)), NoiseStream(5).randn((4,)))


def test_churn_continues_the_stream(components: Components) -> None:
    stage = stage_of(components, churn=Churn(1.0))
    (found,) = run_stage(stage, conditions(), [NoiseStream(5)])
    (plain,) = run_stage(stage_of(components), conditions(), [NoiseStream(5)])
    assert not np.array_equal(found.frames, plain.frames)
    before = plain.noise.clone()
    assert not np.array_equal(found.noise.randn((4,)), before.randn((4,)))


@pytest.mark.parametrize(("scale", "rows"), [(1.5, 2), (1.0, 1)])
def test_without_guidance_there_is_one_row(scale: float, rows: int, components: Components) -> None:
    encoded, constants, *_ = by_hand(stage_of(components, guidance=(scale, scale)), [5])
    conditioning = encoded.samples[0].conditioning
    assert len(conditioning) == rows
    assert all(len(value) == rows for name, value in constants.items() if name != "time_table")
    assert conditioning[-1].any()
    assert rows == 1 or not conditioning[0].any()


@pytest.mark.parametrize(("chunk", "calls"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (8, [3])])
def test_the_decoder_is_never_padded(chunk: int, calls: list[int], components: Components, monkeypatch: Any) -> None:
    stage = stage_of(components, decode_chunk=chunk)
    seen: list[int] = []
    h, w = stage.config.latent_size
    latents = np.random.default_rng(0).standard_normal((1, FRAMES, 4, h, w)).astype(np.float32)
    with components.use(stage.keys["vae_decoder"]) as decoder:
        kind = type(decoder)
    plain = kind.map
    monkeypatch.setattr(
        kind, "map", lambda self, batches: (seen.extend(len(b["latents"]) for b in batches), plain(self, batches))[1]
    )
    (frames,) = decode(stage, [latents], Finiteness(np))
    assert seen == calls
    assert frames.shape == (FRAMES, *SIZE, 3)


def test_conditions_are_taken_once() -> None:
    both = conditions()
    first, second = both.take()
    np.testing.assert_array_equal(first, pictures(0))
    np.testing.assert_array_equal(second, pictures(1))
    with pytest.raises(AssertionError):
        both.take()


def test_what_is_not_finite_names_its_step(components: Components) -> None:
    spoilt = pictures(0)
    spoilt[1, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="step 0"):
        run_stage(stage_of(components), Conditions(spoilt, pictures(1)), [NoiseStream(5)])


def test_a_rehearsal_makes_each_call_once(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, made = stage_of(components, steps=25), []
    run_stage(stage_of(components, steps=1), conditions(), [NoiseStream(5)])  # loads the components
    executables = {type(executable) for executable in components._loaded.values()}
    for kind in executables:
        plain = kind.map

        def counted(self: Any, batches: Any, plain: Any = plain) -> Any:
            made.append(len(batches))
            return plain(self, batches)

        monkeypatch.setattr(kind, "map", counted)
    with components.rehearsing():
        run_stage(stage, conditions(), [NoiseStream(5)])
    # CLIP, each condition's frames, two steps of the U-Net and one chunk: one call a lane, of three frames.
    assert len(made) == 1 + 2 + 2 + 1
    assert max(made) <= components.lanes


def test_engines_take_so_many_steps(components: Components) -> None:
    held: Any = SimpleNamespace(bundle=components.bundle, backend=SimpleNamespace(engines=object(), xp=np))
    Stage(held, "segment", Settings(steps=200))
    with pytest.raises(InputError, match="`steps=201`: engines take at most 200 steps"):
        Stage(held, "segment", Settings(steps=201))
