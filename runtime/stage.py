"""One stage of Diffusion-VAS: two conditions in, decoded pictures out.

Both stages run the same pipeline (the authors' `pipeline(images, rgb_images)`); they differ in their weights and in
what their two conditions are. Written against the array API, on the backend's arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .components import Component, Components, stage_keys
from .context import check_layout, context_rows
from .engine_store import ENCODE_FRAMES, LARGEST_STEPS
from .errors import InputError, NonFiniteError
from .images import clip_pixels, rescale_unsigned, to_bytes
from .manifest import ContextLayout, Manifest, StageName
from .noise import NoiseStream
from .sampler import (
    Array,
    Callback,
    Churn,
    Schedule,
    denoised_of,
    guidance_ramp,
    guide,
    is_guided,
    karras_sigmas,
    scale_input,
)
from .sampler import sample as run_sampler

CfgRows = Literal["auto", "batched", "separate"]


@dataclass(frozen=True)
class Settings:
    """How a stage is run.

    Attributes:
        steps: sampler steps.
        guidance: guidance scale of the first and of the last frame, linear in between; <= 1 throughout is no guidance.
        fps: frames per second, as the U-Net is told (8 in the authors' demo, 2 for TAO-Amodal).
        churn: EDM's stochasticity.
        context: context layout; None for the bundle's.
        decode_chunk: frames decoded at once; None for the bundle's. Part of the result: the decoder is temporal.
        cfg_rows: both CFG rows in one call (`batched`), one after the other, in less memory (`separate`), or what
            the backend is best at (`auto`): on a CPU, side by side.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.5, 1.5)
    fps: float = 8.0
    churn: Churn = field(default_factory=Churn)
    context: ContextLayout | None = None
    decode_chunk: int | None = None
    cfg_rows: CfgRows = "auto"

    def __post_init__(self) -> None:
        # Asked here so that nothing runs before it is found out.
        karras_sigmas(self.steps, 1.0, 2.0)
        guidance_ramp(self.guidance, 1)
        if self.decode_chunk is not None and self.decode_chunk < 1:
            raise InputError(f"decode chunk {self.decode_chunk}: expected 1 frame or more (--decode-chunk).")
        if self.cfg_rows not in ("auto", "batched", "separate"):
            raise InputError(f"cfg_rows {self.cfg_rows!r} is unknown; expected auto, batched or separate.")
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise InputError(f"fps {self.fps}: expected a number above 0 (--fps).")


class StageOutput(NamedTuple):
    """Decoded pictures uint8 [T, H, W, 3], and the noise stream where the run left it."""

    frames: NDArray[np.uint8]
    noise: NoiseStream


class _Noise(NamedTuple):
    images: NDArray[np.float32]  # [T, 3, H, W]
    rgb_images: NDArray[np.float32]  # [T, 3, H, W]
    latents: NDArray[np.float32]  # [1, T, 4, h, w]


def _draw(stream: NoiseStream, manifest: Manifest) -> _Noise:
    frames, (height, width), (h, w) = manifest.frames, manifest.size, manifest.latent_size
    images = stream.randn((frames, 1, 3, height, width))[:, 0]
    rgb_images = stream.randn((frames, 1, 3, height, width))[:, 0]
    latents = stream.randn((1, frames, manifest.latent_channels, h, w), manifest.noise_dtype)
    return _Noise(images, rgb_images, latents.astype(np.float32))


def run_stage(
    components: Components,
    stage: StageName,
    images: NDArray[np.float32],
    rgb_images: NDArray[np.float32],
    noises: Sequence[NoiseStream],
    settings: Settings,
    callback: Callback | None = None,
) -> list[StageOutput]:
    """Runs one stage, once for each noise stream.

    Samples share what does not depend on noise, CLIP and `unet_conditioner`, and each component is loaded once for all.
    Conditions are encoded for each sample, because its noise is added to them first. A sample is the same bit for bit,
    whatever the others.

    Args:
        images: [T, 3, H, W] in [-1, 1], the first condition; the one that CLIP sees.
        rgb_images: [T, 3, H, W] in [-1, 1], the second condition.
        noises: one or more; each draws, in this order: images' noise, rgb_images' noise, latents, churn. Left as they
            were; the stream after the run is in the result.
        callback: called after each step with (step, sigma, latents [T, 4, h, w]), sample after sample.

    Returns:
        One result per noise stream.

    Raises:
        NonFiniteError: latents or decoded frames became NaN or infinite.
        InputError: settings that the bundle cannot serve.
    """
    manifest = components.bundle.manifest
    layout = check_layout(settings.context, manifest.context_layout)
    keys = stage_keys(components.bundle, stage)
    backend = components.backend
    xp, engines = backend.xp, backend.engines is not None
    if engines and settings.steps > LARGEST_STEPS:
        raise InputError(f"--steps {settings.steps}: engines take at most {LARGEST_STEPS} steps.")
    guided = is_guided(settings.guidance)
    sigmas = karras_sigmas(
        settings.steps, manifest.scheduler.sigma_min, manifest.scheduler.sigma_max, manifest.scheduler.rho
    )
    schedule = Schedule.of(sigmas, settings.churn)
    scale = xp.asarray(guidance_ramp(settings.guidance, manifest.frames)).reshape(1, -1, 1, 1, 1)
    streams = [noise.clone() for noise in noises]
    strength = np.float32(manifest.noise_augmentation)

    with ThreadPoolExecutor(1, "amodal-noise") as pool:
        # The noise is drawn while CLIP runs, which does not need it, and then one sample ahead: held for all at once,
        # at the real size it would take 80 MB each.
        coming: Future[_Noise] = pool.submit(_draw, streams[0], manifest)
        with components.use(keys["image_encoder"], len(images)) as image_encoder:
            embeddings = _embed(image_encoder, images, manifest, manifest.frames if engines else 5, xp)
        conditionings, starts = [], []
        # Frames are independent. On a CPU, one at a time is the least memory, and was no slower than five.
        chunk = ENCODE_FRAMES if engines else 1
        with components.use(keys["vae_encoder"], 2 * len(images)) as vae_encoder:
            for following in (*streams[1:], None):
                draws = coming.result()
                if following is not None:
                    coming = pool.submit(_draw, following, manifest)
                cond = xp.concatenate(
                    [
                        _encode(vae_encoder, rescale_unsigned(frames) + strength * augmentation, chunk, xp)
                        for frames, augmentation in ((images, draws.images), (rgb_images, draws.rgb_images))
                    ],
                    axis=1,
                )[None]
                conditionings.append(xp.concatenate([xp.zeros_like(cond), cond]) if guided else cond)
                starts.append(draws.latents)

    with components.use(keys["unet_conditioner"]) as conditioner:
        ids = [settings.fps - 1, manifest.motion_bucket, manifest.noise_augmentation]
        constants = conditioner(
            {
                "context": xp.ascontiguousarray(context_rows(embeddings, layout, guided, xp)),
                "sigmas": xp.asarray(schedule.hats),
                "time_ids": xp.asarray(ids, dtype=np.float32),
            }
        )
    time_table = constants.pop("time_table")

    mode = settings.cfg_rows if settings.cfg_rows != "auto" or components.lanes == 1 else "side by side"
    with components.use(keys["unet"], len(conditionings[0]) if mode == "side by side" else 1) as unet:

        def draw(conditioning: Array, start: NDArray[np.float32], stream: NoiseStream) -> Array:
            evaluate = _rows(unet, conditioning, constants, mode in ("auto", "batched"), xp)

            def denoise(x: Array, step: int) -> Array:
                sigma = schedule.hats[step]
                velocity = evaluate(scale_input(x, sigma), time_table[step])
                if guided:
                    velocity = guide(velocity[:1], velocity[1:], scale)
                return denoised_of(velocity, x, sigma)

            return run_sampler(
                denoise,
                xp.asarray(start * schedule.initial_scale),
                schedule,
                draw_noise=lambda: xp.asarray(stream.randn(start.shape, manifest.noise_dtype).astype(np.float32)),
                callback=None if callback is None else lambda step, sigma, x: callback(step, sigma, x[0]),
                xp=xp,
            )

        samples = [draw(*sample) for sample in zip(conditionings, starts, streams, strict=True)]

    chunk = settings.decode_chunk or manifest.decode_chunk
    with components.use(keys["vae_decoder"]) as vae_decoder:
        decoded = [_decode(vae_decoder, x[0] / np.float32(manifest.scaling_factor), chunk, xp) for x in samples]
    if not all(bool(xp.isfinite(frames).all()) for frames in decoded):
        raise NonFiniteError(
            schedule.steps - 1,
            float(schedule.sigmas[-2]),
            "The VAE decoder gave values that are not finite: it overflowed; export the bundle again with --precision "
            "fp32, or check the checkpoint's weights.",
        )
    pictures = [to_bytes(backend.to_host(frames)) for frames in decoded]
    return [StageOutput(frames, stream) for frames, stream in zip(pictures, streams, strict=True)]


def _embed(image_encoder: Component, images: NDArray[np.float32], manifest: Manifest, chunk: int, xp: Any) -> Array:
    entry = manifest.image_encoder
    pixels = clip_pixels(images, entry.side, entry.mean, entry.std)
    return xp.concatenate([out["embeddings"] for out in image_encoder.map(_chunks("pixels", pixels, chunk))])


def _encode(vae_encoder: Component, frames: Array, chunk: int, xp: Any) -> Array:
    return xp.concatenate([out["latents"] for out in vae_encoder.map(_chunks("frames", frames, chunk))])


def _decode(vae_decoder: Component, latents: Array, chunk: int, xp: Any) -> Array:
    # Never padded: the decoder mixes neighbouring frames, so a padded last chunk would be another result.
    return xp.concatenate([out["frames"] for out in vae_decoder.map(_chunks("latents", latents, chunk))])


def _chunks(name: str, frames: Array, size: int) -> list[dict[str, Array]]:
    return [{name: frames[i : i + size]} for i in range(0, len(frames), size)]


def _rows(
    unet: Component, conditioning: Array, constants: dict[str, Array], batched: bool, xp: Any
) -> Callable[[Array, Array], Array]:
    """The U-Net as a function of (scaled latents, one row of the time table), over all CFG rows."""
    count = len(conditioning)
    parts = [slice(0, count)] if batched else [slice(i, i + 1) for i in range(count)]
    fixed = [
        {"conditioning": conditioning[part], **{name: value[part] for name, value in constants.items()}}
        for part in parts
    ]

    def evaluate(latents: Array, time: Array) -> Array:
        outputs = unet.map([{"latents": latents, "time": time, **inputs} for inputs in fixed])
        return outputs[0]["velocity"] if len(outputs) == 1 else xp.concatenate([o["velocity"] for o in outputs])

    return evaluate
