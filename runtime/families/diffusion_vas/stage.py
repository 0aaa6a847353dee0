"""Runs one stage of Diffusion-VAS: two conditions in, decoded pictures out.

Both stages run the same pipeline (the authors' `pipeline(images, rgb_images)`) with other weights and conditions. A
stage is four functions, `encode`, `condition`, `denoise` and `decode`. Their results can be kept, so that what does not
depend on the noise or the object is computed once. Written against the array API, on the backend's arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...errors import InputError, NonFiniteError
from ...execution.components import Component, Components
from ...execution.session import components_of
from ...pictures.images import clip_pixels, rescale_unsigned, to_bytes
from ...sampling.denoiser import denoised_of, guidance_ramp, guide, scale_input
from ...sampling.finiteness import Finiteness
from ...sampling.noise import Draw, NoiseStream
from ...sampling.sampler import Callback
from ...sampling.sampler import sample as run_sampler
from ...sampling.schedule import Schedule, karras_sigmas
from .calls import LARGEST_STEPS, frames_at_once
from .config import Config, StageName, config_of
from .context import check_layout, context_rows
from .settings import Settings

DECODER_OVERFLOWED = (
    "The VAE decoder gave values that are not finite: it overflowed; export the bundle again with `amodal export "
    "--precision fp32`, or check the checkpoint's weights."
)
_REHEARSED_STEPS = 2  # the second runs with the memory that the first has allocated


class Conditions:
    """A stage's two conditions. They are taken once, so that their memory is freed after encoding.

    Args:
        images: float32 [T, 3, H, W] in [-1, 1], the first condition, which CLIP also sees.
        rgb_images: likewise, the second.
    """

    def __init__(self, images: Array, rgb_images: Array) -> None:
        self._held: tuple[Array, Array] | None = (images, rgb_images)

    def take(self) -> tuple[Array, Array]:
        """Returns both, and drops the references to them."""
        assert self._held is not None
        held, self._held = self._held, None
        return held


@dataclass(frozen=True)
class Stage:
    """A stage of a bundle with its settings.

    Raises:
        InputError: the bundle lacks the stage, or cannot run with the settings.
    """

    components: Components
    name: StageName
    settings: Settings

    def __post_init__(self) -> None:
        check_layout(self.settings.context, self.config.context_layout)
        if self.components.backend.engines is not None and self.settings.steps > LARGEST_STEPS:
            raise InputError(
                f"`steps={self.settings.steps}`: engines take at most {LARGEST_STEPS} steps.", field="steps"
            )
        components_of(self.components.bundle, self.name)

    @cached_property
    def config(self) -> Config:
        """The bundle's config."""
        return config_of(self.components.bundle.manifest)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Components of the stage: role -> key in the bundle."""
        return components_of(self.components.bundle, self.name)

    @property
    def xp(self) -> Any:
        """Namespace of the backend's arrays."""
        return self.components.backend.xp

    @cached_property
    def schedule(self) -> Schedule:
        """Noise levels of the run."""
        scheduler = self.config.scheduler
        sigmas = karras_sigmas(self.settings.steps, scheduler.sigma_min, scheduler.sigma_max, scheduler.rho)
        return Schedule.of(sigmas, self.settings.churn)

    @cached_property
    def frames_at_once(self) -> dict[str, int]:
        """Frames that each component takes in one call."""
        chunk = self.settings.decode_chunk or self.config.decode_chunk
        return frames_at_once(self.config.frames, chunk, self.components.backend.on_gpu)


class EncodedSample(NamedTuple):
    """Where the sampler of one sample starts."""

    conditioning: Array  # float32 [B, T, 2C, h, w], latents of both conditions; B = 2 if guided, the first row zero
    start: Array  # float32 [1, T, C, h, w], unit noise
    stream: NoiseStream  # after these draws


class Encoded(NamedTuple):
    """A stage's encoded conditions."""

    embeddings: Array  # float32 [T, D], CLIP's of the first condition, independent of the noise
    samples: list[EncodedSample]  # one per noise stream


class StageOutput(NamedTuple):
    """Decoded pictures uint8 [T, H, W, 3] on the backend's device, and the noise stream after the run."""

    frames: Array
    noise: NoiseStream


def run_stage(
    stage: Stage,
    conditions: Conditions,
    noises: Sequence[NoiseStream],
    callback: Callback | None = None,
    finite: Finiteness | None = None,
) -> list[StageOutput]:
    """Runs a stage once for each noise stream.

    Samples share what does not depend on noise, CLIP and `unet_conditioner`, and each component is loaded once for all.
    A sample is the same bit for bit, whatever the others.

    Args:
        conditions: on the backend's device; taken.
        noises: one or more, not changed. A sample draws, in this order, the noise of images and of rgb_images, latents,
            and churn.
        callback: called after each step with (step, sigma, latents [T, 4, h, w]), sample after sample.
        finite: records whether latents and pictures are finite, for the caller to raise; None to raise here.

    Raises:
        NonFiniteError: latents or pictures are NaN or infinite.
    """
    watched = Finiteness(stage.xp) if finite is None else finite
    encoded = encode(stage, conditions, noises)
    constants = condition(stage, encoded.embeddings)
    latents = denoise(stage, encoded.samples, constants, callback, watched)
    streams = [sample.stream for sample in encoded.samples]
    del encoded, constants  # the decoder needs their memory
    frames = decode(stage, latents, watched)
    if finite is None:
        watched.raise_if_not_finite()
    return [StageOutput(*output) for output in zip(frames, streams, strict=True)]


def encode(stage: Stage, conditions: Conditions, noises: Sequence[NoiseStream]) -> Encoded:
    """Adds each sample's noise to both conditions and encodes them."""
    images, rgb_images = conditions.take()
    xp, config, components = stage.xp, stage.config, stage.components
    strength, at_once = np.float32(config.noise_augmentation), stage.frames_at_once

    def noisy(frames: Array, noise: NDArray[Any] | Draw) -> Array:
        return rescale_unsigned(frames, xp) + normals(noise, xp)[:, 0] * strength

    streams = [noise.clone() for noise in noises]
    samples: list[EncodedSample] = []
    with _drawn_ahead(streams, config, xp) as draws:
        clip = config.image_encoder
        with components.use(stage.keys["image_encoder"], len(images)) as image_encoder:
            pixels = clip_pixels(images, clip.side, clip.mean, clip.std, xp)
            embeddings = map_frames(image_encoder, "pixels", pixels, "embeddings", at_once["image_encoder"], xp)
            del pixels
        chunk = at_once["vae_encoder"]
        with components.use(stage.keys["vae_encoder"], 2 * len(images)) as vae_encoder:
            for stream, (*noise, start) in zip(streams, draws, strict=True):
                pairs = list(zip((images, rgb_images), noise, strict=True))
                latents = [map_frames(vae_encoder, "frames", noisy(*pair), "latents", chunk, xp) for pair in pairs]
                joined = xp.concatenate(latents, axis=1)[None]
                rows = xp.concatenate([xp.zeros_like(joined), joined]) if stage.settings.guided else joined
                samples.append(EncodedSample(rows, normals(start, xp), stream))
                del noise, start, pairs, latents, joined, rows
    return Encoded(embeddings, samples)


def condition(stage: Stage, embeddings: Array) -> dict[str, Array]:
    """Computes the U-Net's inputs that do not depend on the latents: context and times."""
    with stage.components.use(stage.keys["unet_conditioner"]) as conditioner:
        return constants_of(stage, conditioner, embeddings)


def constants_of(stage: Stage, conditioner: Component, embeddings: Array) -> dict[str, Array]:
    """Computes the inputs of `condition` for the T embeddings of a window."""
    xp, config, settings = stage.xp, stage.config, stage.settings
    layout = check_layout(settings.context, config.context_layout)
    ids = [settings.fps - 1, config.motion_bucket, config.noise_augmentation]
    return conditioner(
        {
            "context": xp.ascontiguousarray(context_rows(embeddings, layout, settings.guided, xp)),
            "sigmas": xp.asarray(stage.schedule.hats),
            "time_ids": xp.asarray(ids, dtype=np.float32),
        }
    )


def denoise(
    stage: Stage,
    samples: Sequence[EncodedSample],
    constants: dict[str, Array],
    callback: Callback | None,
    finite: Finiteness,
) -> list[Array]:
    """Samples the latents float32 [1, T, C, h, w], one sample after the other.

    Args:
        constants: from `condition`.
        callback, finite: as in `run_stage`.
    """
    xp, config, schedule, settings = stage.xp, stage.config, stage.schedule, stage.settings
    constants = dict(constants)
    time_table = constants.pop("time_table")
    scale = xp.asarray(guidance_ramp(settings.guidance, config.frames)).reshape(1, -1, 1, 1, 1)
    with stage.components.use(stage.keys["unet"], unet_calls(stage)) as unet:

        def draw(sample: EncodedSample) -> Array:
            evaluate = _rows(unet, sample.conditioning, constants, is_batched(stage), xp)

            def denoised(x: Array, step: int) -> Array:
                sigma = schedule.hats[step]
                velocity = evaluate(scale_input(x, sigma), time_table[step])
                if settings.guided:
                    velocity = guide(velocity[:1], velocity[1:], scale)
                return denoised_of(velocity, x, sigma)

            return run_sampler(
                denoised,
                sample.start * schedule.initial_scale,
                schedule.first(_REHEARSED_STEPS) if stage.components.rehearsal else schedule,
                draw_noise=lambda: normals(sample.stream.draw(sample.start.shape, config.noise_dtype), xp),
                callback=None if callback is None else lambda step, sigma, x: callback(step, sigma, x[0]),
                finite=finite,
                xp=xp,
            )

        return [draw(sample) for sample in samples]


def is_batched(stage: Stage) -> bool:
    """Returns whether the U-Net takes both CFG rows in one call."""
    return stage.settings.cfg_rows == "batched" or (stage.settings.cfg_rows == "auto" and stage.components.lanes == 1)


def unet_calls(stage: Stage) -> int:
    """Returns the number of calls that the U-Net gets at once: both rows side by side, or one."""
    return 2 if stage.settings.guided and stage.settings.cfg_rows == "auto" and stage.components.lanes > 1 else 1


def decode(stage: Stage, latents: Sequence[Array], finite: Finiteness) -> list[Array]:
    """Decodes latents float32 [1, T, C, h, w] into pictures uint8 [T, H, W, 3]."""
    xp, schedule, factor = stage.xp, stage.schedule, np.float32(stage.config.scaling_factor)
    if stage.components.rehearsal:  # after two steps, the noise is far out of the decoder's range
        latents = [xp.zeros_like(x) for x in latents]
    with stage.components.use(stage.keys["vae_decoder"]) as vae_decoder:
        # The last chunk is not padded: the decoder mixes neighbouring frames, so that would change the result.
        at_once = stage.frames_at_once["vae_decoder"]
        decoded = [map_frames(vae_decoder, "latents", x[0] / factor, "frames", at_once, xp) for x in latents]
    for frames in decoded:
        finite.note(frames, NonFiniteError(schedule.steps - 1, float(schedule.sigmas[-2]), DECODER_OVERFLOWED))
    return [to_bytes(frames, xp) for frames in decoded]


_Noise: TypeAlias = tuple[Any, Any, Any]


@contextmanager
def _drawn_ahead(streams: Sequence[NoiseStream], config: Config, xp: Any) -> Iterator[Iterator[_Noise]]:
    """Draws the noise of each stream on a thread, one sample ahead.

    The first is drawn while CLIP runs, which does not need it. Drawn for all samples at once, it would take 80 MB per
    sample at the real size.
    """
    with ThreadPoolExecutor(1, "amodal-noise") as pool:
        first = pool.submit(_draw, streams[0], config, xp)

        def each(coming: Future[_Noise]) -> Iterator[_Noise]:
            for following in streams[1:]:
                noise, coming = coming.result(), pool.submit(_draw, following, config, xp)
                yield noise
            yield coming.result()

        yield each(first)


def _draw(stream: NoiseStream, config: Config, xp: Any) -> _Noise:
    """Draws the noise of images, rgb_images and latents of one sample; for a GPU, only the random words."""
    frames, (height, width), (h, w) = config.frames, config.size, config.latent_size
    draw: Callable[..., Any] = stream.randn if xp is np else stream.draw
    pictures = (frames, 1, 3, height, width)
    return draw(pictures), draw(pictures), draw((1, frames, config.latent_channels, h, w), config.noise_dtype)


def normals(drawn: NDArray[Any] | Draw, xp: Any) -> Array:
    """Returns drawn noise as float32 on the device of `xp`."""
    return (drawn.normals(xp) if isinstance(drawn, Draw) else drawn).astype(np.float32, copy=False)


def map_frames(component: Component, name: str, frames: Array, wanted: str, size: int, xp: Any) -> Array:
    """Runs a component on frames, `size` at a time."""
    chunks = [{name: frames[i : i + size]} for i in range(0, len(frames), size)]
    return xp.concatenate([out[wanted] for out in component.map(chunks)])


def _rows(
    unet: Component, conditioning: Array, constants: dict[str, Array], batched: bool, xp: Any
) -> Callable[[Array, Array], Array]:
    """Returns the U-Net as a function of scaled latents and a row of the time table, for all CFG rows."""
    count = len(conditioning)
    parts = [slice(0, count)] if batched else [slice(i, i + 1) for i in range(count)]
    constants = {"conditioning": conditioning, **constants}
    fixed = [{name: value[part] for name, value in constants.items()} for part in parts]

    def evaluate(latents: Array, time: Array) -> Array:
        outputs = unet.map([{"latents": latents, "time": time, **inputs} for inputs in fixed])
        return outputs[0]["velocity"] if len(outputs) == 1 else xp.concatenate([o["velocity"] for o in outputs])

    return evaluate
