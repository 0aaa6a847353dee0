"""Runs a stage over a block of frames for one or several objects, which the sampler denoises together, in windows.

What the networks see of a frame, and its noise, do not depend on the window, so that both are encoded once. An object's
result is the same whatever the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...clips.windows import Window
from ...errors import NonFiniteError
from ...pictures.images import to_bytes
from ...sampling.denoiser import denoised_of, guide, scale_input
from ...sampling.finiteness import Finiteness
from ...sampling.sampler import Callback
from ...sampling.sampler import sample as run_sampler
from .block_encoding import EncodedBlock, Known, Pictures, encode_block
from .block_noise import Noise
from .stage import DECODER_OVERFLOWED, Stage, constants_of, is_batched, unet_calls

Plan = Callable[[int], list[Window]]
"""The windows of a step."""


class DrawnBlock(NamedTuple):
    """Decoded pictures uint8 [K, n, H, W, 3] on the host, and where there are any: bool [K, n]."""

    frames: NDArray[np.uint8]
    drawn: NDArray[np.bool_]


def run_block(
    stage: Stage,
    pictures: Pictures,
    noise: Noise,
    plan: Plan,
    scale: NDArray[np.float32],
    callback: Callback | None = None,
    encoded: Known | None = None,
) -> DrawnBlock:
    """Runs a stage over a block.

    Args:
        plan: the windows of each step; one without an active frame of an object is not run for it.
        scale: float32 [n], the guidance scale of each frame.
        callback: called after each step with (step, sigma, latents [K, n, C, h, w]).
        encoded: first conditions that need not be encoded; what is encoded is added.

    Raises:
        NonFiniteError: latents or pictures are NaN or infinite.
    """
    finite = Finiteness(stage.xp)
    windows = Windows(stage, plan, pictures.active)
    shape = (pictures.objects, pictures.count, *stage.config.size, 3)
    if not windows.drawn.any():
        return DrawnBlock(np.zeros(shape, np.uint8), windows.drawn)
    conditions = encode_block(stage, pictures, noise, windows.seen, encoded)
    latents = _denoise(stage, conditions, noise, windows, scale, callback, finite)
    del conditions
    frames = _decode(stage, latents, windows.drawn, finite)
    finite.raise_if_not_finite(stage.components.backend.to_host(finite.flags()) if stage.xp is not np else None)
    return DrawnBlock(frames, windows.drawn)


class Windows:
    """The windows of each step, without those that need not be run.

    Attributes:
        steps: of each step, pairs of object and window.
        covered: bool [K, n] for each step, the frames that its windows decide.
        seen: bool [K, n], the frames in any window.
        drawn: bool [K, n], the frames that a window decides at some step.
    """

    def __init__(self, stage: Stage, plan: Plan, active: NDArray[np.bool_]) -> None:
        self.steps: list[list[tuple[int, Window]]] = []
        self.covered: list[NDArray[np.bool_]] = []
        self.seen, self.drawn = np.zeros_like(active), np.zeros_like(active)
        for step in range(stage.schedule.steps):
            found = [
                (index, window)
                for index in range(len(active))
                for window in plan(step)
                if active[index, window.frames[window.weights > 0]].any()
            ]
            covered = np.zeros_like(active)
            for index, window in found:
                self.seen[index, window.frames] = True
                covered[index, window.frames[window.weights > 0]] = True
            self.steps.append(found)
            self.covered.append(covered)
            self.drawn |= covered


class _Job(NamedTuple):
    """The calls for a window of an object: the inputs that are the same at every step, per call."""

    member: int  # which of the objects
    frames: Array  # [T], on the device
    weights: Array  # float32 [1, T, 1, 1, 1]
    fixed: list[dict[str, Array]]
    scale: Array  # float32 [1, T, 1, 1, 1]


def _denoise(
    stage: Stage,
    encoded: EncodedBlock,
    noise: Noise,
    windows: Windows,
    scale: NDArray[np.float32],
    callback: Callback | None,
    finite: Finiteness,
) -> Array:
    """Samples the latents float32 [K, n, C, h, w] of all objects."""
    xp, schedule, guided = stage.xp, stage.schedule, stage.settings.guided
    jobs, time_table = _prepare_jobs(stage, encoded, windows, scale)
    covered = [None if c[windows.drawn].all() else xp.asarray(c[..., None, None, None]) for c in windows.covered]
    start = noise.start(xp)
    latents = xp.repeat(start[None], len(encoded.conditioning), axis=0) * schedule.initial_scale
    last = xp.zeros_like(latents)  # what each frame was denoised to when a window last decided it
    with stage.components.use(stage.keys["unet"], unet_calls(stage)) as unet:

        def denoised(x: Array, step: int) -> Array:
            nonlocal last
            sigma, time = schedule.hats[step], time_table[step]
            scaled = scale_input(x, sigma)
            calls = [
                {"latents": xp.take(scaled[job.member : job.member + 1], job.frames, axis=1), "time": time, **fixed}
                for job in jobs[step]
                for fixed in job.fixed
            ]
            outputs = iter([out["velocity"] for out in unet.map(calls)])
            found = xp.zeros_like(x)
            for job in jobs[step]:
                velocity = xp.concatenate([next(outputs) for _ in job.fixed]) if len(job.fixed) > 1 else next(outputs)
                if guided:
                    velocity = guide(velocity[:1], velocity[1:], job.scale)
                one = denoised_of(velocity, xp.take(x[job.member : job.member + 1], job.frames, axis=1), sigma)
                found[job.member, job.frames] += (one * job.weights)[0]
            last = found if covered[step] is None else xp.where(covered[step], found, last)
            return last

        return run_sampler(
            denoised,
            latents,
            schedule,
            draw_noise=lambda: xp.repeat(noise.churn(xp)[None], len(latents), axis=0),
            callback=callback,
            finite=finite,
            xp=xp,
        )


def _prepare_jobs(
    stage: Stage, encoded: EncodedBlock, windows: Windows, scale: NDArray[np.float32]
) -> tuple[list[list[_Job]], Array]:
    """Returns the jobs of each step, with the U-Net's constants for each window, and the time table."""
    made: dict[tuple[int, bytes, bytes], _Job] = {}
    table = None
    with stage.components.use(stage.keys["unet_conditioner"]) as conditioner:
        for index, window in (pair for step in windows.steps for pair in step):
            if (key := _key(index, window)) not in made:
                frames = stage.xp.asarray(window.frames)
                embeddings = stage.xp.take(encoded.embeddings[index], frames, axis=0)
                constants = dict(constants_of(stage, conditioner, embeddings))
                table = constants.pop("time_table") if table is None else table
                constants.pop("time_table", None)
                made[key] = _job(stage, index, window, encoded.conditioning[index : index + 1], constants, scale)
    return [[made[_key(index, window)] for index, window in step] for step in windows.steps], table


def _key(index: int, window: Window) -> tuple[int, bytes, bytes]:
    return index, window.frames.tobytes(), window.weights.tobytes()


def _job(
    stage: Stage,
    index: int,
    window: Window,
    conditioning: Array,
    constants: Mapping[str, Array],
    scale: NDArray[np.float32],
) -> _Job:
    xp, frames = stage.xp, stage.xp.asarray(window.frames)
    cond = xp.take(conditioning, frames, axis=1)
    rows = xp.concatenate([xp.zeros_like(cond), cond]) if stage.settings.guided else cond
    parts = [slice(0, len(rows))] if is_batched(stage) else [slice(i, i + 1) for i in range(len(rows))]
    fixed = [{name: value[part] for name, value in {"conditioning": rows, **constants}.items()} for part in parts]
    weights, scales = (xp.asarray(x).reshape(1, -1, 1, 1, 1) for x in (window.weights, scale[window.frames]))
    return _Job(index, frames, weights, fixed, scales)


def _decode(stage: Stage, latents: Array, drawn: NDArray[np.bool_], finite: Finiteness) -> NDArray[np.uint8]:
    """Decodes latents [K, n, C, h, w] where something was drawn; returns pictures uint8 [K, n, H, W, 3] on the host."""
    xp, schedule, factor = stage.xp, stage.schedule, np.float32(stage.config.scaling_factor)
    frames = np.zeros((*drawn.shape, *stage.config.size, 3), np.uint8)
    error = NonFiniteError(schedule.steps - 1, float(schedule.sigmas[-2]), DECODER_OVERFLOWED)
    size = stage.frames_at_once["vae_decoder"]
    with stage.components.use(stage.keys["vae_decoder"]) as vae_decoder:
        for index, start in np.ndindex(len(drawn), -(-drawn.shape[1] // size)):
            at = slice(start * size, min((start + 1) * size, drawn.shape[1]))
            if drawn[index, at].any():
                # Frames that no window decided hold noise, which the decoder would mix into their neighbours.
                there = xp.asarray(drawn[index, at, None, None, None])
                decoded = vae_decoder({"latents": xp.where(there, latents[index, at], np.float32(0)) / factor})[
                    "frames"
                ]
                finite.note(decoded, error)
                frames[index, at] = stage.components.backend.to_host(to_bytes(decoded, xp))
    return frames
