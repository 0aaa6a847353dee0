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

from ...builds.store import ENCODE_FRAMES, LARGEST_STEPS
from ...bundle.manifest import ContextLayout, Manifest, StageName
from ...errors import InputError, NonFiniteError
from ...execution.components import Component, Components, stage_keys
from ...pictures.images import clip_pixels, rescale_unsigned, to_bytes
from ...sampling.finiteness import Finiteness
from ...sampling.guidance import guidance_ramp, guide, is_guided
from ...sampling.noise import Draw, NoiseStream
from ...sampling.preconditioning import denoised_of, scale_input
from ...sampling.sampler import Array, Callback
from ...sampling.sampler import sample as run_sampler
from ...sampling.schedule import Churn, Schedule, karras_sigmas
from .context import check_layout, context_rows

_DECODER_OVERFLOWED = (
    "The VAE decoder gave values that are not finite: it overflowed; export the bundle again with `amodal export "
    "--precision fp32`, or check the checkpoint's weights."
)
CfgRows = Literal["auto", "batched", "separate"]
_REHEARSED_STEPS = 2  # the second finds whatever the first has made


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
            raise InputError(f"decode chunk {self.decode_chunk}: expected 1 frame or more.", field="decode_chunk")
        if self.cfg_rows not in ("auto", "batched", "separate"):
            raise InputError(f"cfg_rows {self.cfg_rows!r} is unknown; expected auto, batched or separate.")
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise InputError(f"fps {self.fps}: expected a number above 0.", field="fps")


class Conditions:
    """A stage's two conditions, to be taken once: their memory goes when they have been encoded.

    Args:
        images: float32 [T, 3, H, W] in [-1, 1], the first; the one that CLIP sees.
        rgb_images: float32 [T, 3, H, W] in [-1, 1], the second.
    """

    def __init__(self, images: Array, rgb_images: Array) -> None:
        self._held: tuple[Array, Array] | None = (images, rgb_images)

    def take(self) -> tuple[Array, Array]:
        """Both; afterwards this holds neither."""
        assert self._held is not None
        held, self._held = self._held, None
        return held


class StageOutput(NamedTuple):
    """Decoded pictures uint8 [T, H, W, 3], on the backend's device, and the noise stream where the run left it."""

    frames: Array
    noise: NoiseStream


class _Noise(NamedTuple):
    images: NDArray[np.float32] | Draw  # [T, 1, 3, H, W]
    rgb_images: NDArray[np.float32] | Draw  # [T, 1, 3, H, W]
    latents: NDArray[Any] | Draw  # [1, T, 4, h, w]


def _draw(stream: NoiseStream, manifest: Manifest, xp: Any) -> _Noise:
    """What must be done on the host: all of it if that is where the run is."""
    frames, (height, width), (h, w) = manifest.frames, manifest.size, manifest.latent_size
    draw: Callable[..., Any] = stream.randn if xp is np else stream.draw
    pictures = (frames, 1, 3, height, width)
    return _Noise(
        draw(pictures), draw(pictures), draw((1, frames, manifest.latent_channels, h, w), manifest.noise_dtype)
    )


def _normals(drawn: NDArray[Any] | Draw, xp: Any) -> Array:
    return (drawn.normals(xp) if isinstance(drawn, Draw) else drawn).astype(np.float32, copy=False)


def run_stage(
    components: Components,
    stage: StageName,
    conditions: Conditions,
    noises: Sequence[NoiseStream],
    settings: Settings,
    callback: Callback | None = None,
    *,
    finite: Finiteness | None = None,
    rehearsal: bool = False,
) -> list[StageOutput]:
    """Runs one stage, once for each noise stream.

    Samples share what does not depend on noise, CLIP and `unet_conditioner`, and each component is loaded once for all.
    Conditions are encoded for each sample, because its noise is added to them first. A sample is the same bit for bit,
    whatever the others.

    Args:
        conditions: on the backend's device; taken.
        noises: one or more; each draws, in this order: images' noise, rgb_images' noise, latents, churn. Left as they
            were; the stream after the run is in the result.
        callback: called after each step with (step, sigma, latents [T, 4, h, w]), sample after sample.
        finite: keeps whether everything was, for the caller to settle; None to have it settled before this returns.
        rehearsal: whether to run everything that a run would, but only once: two steps, and of chunks with the same
            number of frames the first. What comes out means nothing.

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
    xp = backend.xp
    on_gpu = xp is not np
    watched = Finiteness(xp) if finite is None else finite
    if backend.engines is not None and settings.steps > LARGEST_STEPS:
        raise InputError(f"`steps={settings.steps}`: engines take at most {LARGEST_STEPS} steps.", field="steps")
    guided, clip = is_guided(settings.guidance), manifest.image_encoder
    sigmas = karras_sigmas(
        settings.steps, manifest.scheduler.sigma_min, manifest.scheduler.sigma_max, manifest.scheduler.rho
    )
    schedule = Schedule.of(sigmas, settings.churn)
    scale = xp.asarray(guidance_ramp(settings.guidance, manifest.frames)).reshape(1, -1, 1, 1, 1)
    streams = [noise.clone() for noise in noises]
    strength = np.float32(manifest.noise_augmentation)
    images, rgb_images = conditions.take()

    def noisy(frames: Array, noise: NDArray[Any] | Draw) -> Array:
        return rescale_unsigned(frames, xp) + _normals(noise, xp)[:, 0] * strength

    with ThreadPoolExecutor(1, "amodal-noise") as pool:
        # The noise is drawn while CLIP runs, which does not need it, and then one sample ahead: held for all at once,
        # at the real size it would take 80 MB each.
        coming: Future[_Noise] = pool.submit(_draw, streams[0], manifest, xp)
        with components.use(keys["image_encoder"], len(images)) as image_encoder:
            pixels = clip_pixels(images, clip.side, clip.mean, clip.std, xp)
            chunk = manifest.frames if on_gpu else 5
            embeddings = _mapped(image_encoder, "pixels", pixels, "embeddings", chunk, xp, rehearsal)
            del pixels
        conditionings, starts = [], []
        # Frames are independent. On a CPU, one at a time is the least memory, and was no slower than five.
        chunk = ENCODE_FRAMES if on_gpu else 1
        with components.use(keys["vae_encoder"], 2 * len(images)) as vae_encoder:
            for following in (*streams[1:], None):
                draws = coming.result()
                if following is not None:
                    coming = pool.submit(_draw, following, manifest, xp)
                cond = xp.concatenate(
                    [
                        _mapped(vae_encoder, "frames", noisy(*pair), "latents", chunk, xp, rehearsal)
                        for pair in ((images, draws.images), (rgb_images, draws.rgb_images))
                    ],
                    axis=1,
                )[None]
                conditionings.append(xp.concatenate([xp.zeros_like(cond), cond]) if guided else cond)
                starts.append(_normals(draws.latents, xp))
                del draws, cond
    del images, rgb_images, coming

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

        def draw(conditioning: Array, start: Array, stream: NoiseStream) -> Array:
            evaluate = _rows(unet, conditioning, constants, mode in ("auto", "batched"), xp)

            def denoise(x: Array, step: int) -> Array:
                sigma = schedule.hats[step]
                velocity = evaluate(scale_input(x, sigma), time_table[step])
                if guided:
                    velocity = guide(velocity[:1], velocity[1:], scale)
                return denoised_of(velocity, x, sigma)

            return run_sampler(
                denoise,
                start * schedule.initial_scale,
                schedule.first(_REHEARSED_STEPS) if rehearsal else schedule,
                draw_noise=lambda: _normals(stream.draw(start.shape, manifest.noise_dtype), xp),
                callback=None if callback is None else lambda step, sigma, x: callback(step, sigma, x[0]),
                finite=watched,
                xp=xp,
            )

        samples = [draw(*sample) for sample in zip(conditionings, starts, streams, strict=True)]
    del draw, conditionings, starts  # the decoder needs their memory
    constants.clear()

    chunk = settings.decode_chunk or manifest.decode_chunk
    with components.use(keys["vae_decoder"]) as vae_decoder:
        # Never padded: the decoder mixes neighbouring frames, so a padded last chunk would be another result.
        if rehearsal:  # two steps leave noise that is far beyond what the decoder takes
            samples = [xp.zeros_like(x) for x in samples]
        decoded = [
            _mapped(vae_decoder, "latents", x[0] / np.float32(manifest.scaling_factor), "frames", chunk, xp, rehearsal)
            for x in samples
        ]
    for frames in decoded:
        watched.note(frames, NonFiniteError(schedule.steps - 1, float(schedule.sigmas[-2]), _DECODER_OVERFLOWED))
    if finite is None:
        watched.raise_if_not_finite()
    return [StageOutput(to_bytes(frames, xp), stream) for frames, stream in zip(decoded, streams, strict=True)]


def _mapped(component: Component, given: str, frames: Array, wanted: str, size: int, xp: Any, rehearsal: bool) -> Array:
    """What a component makes of frames, `size` at a time."""
    chunks = [frames[i : i + size] for i in range(0, len(frames), size)]
    if not rehearsal:
        return xp.concatenate([out[wanted] for out in component.map([{given: chunk} for chunk in chunks])])
    made = {count: component({given: frames[:count]})[wanted] for count in {len(chunk) for chunk in chunks}}
    return xp.concatenate([made[len(chunk)] for chunk in chunks])


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
