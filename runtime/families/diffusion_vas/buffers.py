"""Device memory that a run needs beside its engines: the arrays of each phase, from the manifest's shapes.

Each array lives for whole phases; one that a later phase does not name is freed before it. Preparing pictures and
delivering results takes memory by the size of the caller's pictures: little beside the encoding of a bundle of the real
size, but most of the memory of a small bundle with large pictures. Arrays of a few numbers are left out.
"""

from __future__ import annotations

import math

from ...arrays.resampling import Resampling, Size, working_bytes
from ...builds.store import Shape
from ...bundle.manifest import Manifest, TensorEntry
from .config import Config, StageName, config_of
from .shape import PIECE, RunShape

Moment = dict[str, int]
"""Bytes of the arrays that are on the device at the same time, by name."""

_FLOAT32 = 4
_WINDOWS, _WINDOWS_AT_ONCE = 3, 2  # for each T frames of a block: in all steps (`dilated`), and in one (`joint`)
_MASKS = 4  # arrays of a byte per pixel that exist while raw masks on the device are binarised


def depth_size(config: Config, shape: RunShape) -> Size:
    """Returns the (h, w) to which frames are resized for the depth component."""
    from ...pictures.depth import depth_input_size

    assert config.depth is not None
    if shape.size is None or shape.size == config.size:
        return config.depth.height, config.depth.width
    return depth_input_size(*shape.size)


def phase_buffers(manifest: Manifest, stage: StageName, phase: str, shape: RunShape) -> Moment:
    """Returns the arrays of one phase at the moment that takes most memory."""
    config = config_of(manifest)
    if shape.windowed and phase != "depth":
        return _block_buffers(manifest, stage, phase, shape)
    size, frames = shape.size or config.size, config.frames
    given, samples = shape.given or size, shape.samples if stage == "segment" else 1
    shapes = _shapes(manifest, config, stage, phase, shape)
    running = {name: _FLOAT32 * math.prod(dims) for name, dims in shapes.items()}
    computed = stage == "segment" and shape.depth and config.depth is not None
    pixels = frames * size[0] * size[1]
    moments = [running]
    if phase == "depth":
        if shape.windowed:  # computed a piece at a time, beside nothing else
            frames = max(frames, PIECE)
            pixels = frames * size[0] * size[1]
        h, w = depth_size(config, shape)
        held = {"modal": _FLOAT32 * pixels, "pictures": 3 * _FLOAT32 * pixels, "frames": 3 * pixels}
        held["maps"] = _FLOAT32 * pixels
        # One frame in float64: before and while it is resized, then normalised.
        work = max(working_bytes("opencv float64", 1, size, (h, w), 3), 3 * 8 * 3 * h * w)
        moments = [{**held, **running}, {**held, "frame": 8 * 3 * size[0] * size[1], "resizing": work}]
    if (phase == "depth" and not shape.windowed) or (phase == "encode" and not computed):
        moments += _preparing(stage, frames, given, size, computed)
    if phase == "decode":
        quantised = {"latents": running["latents"], "decoded": running["decoded"], "unit": running["pieces"]}
        moments += [{**quantised, "drawn": (samples + 1) * 3 * pixels}]
        moments += delivering(stage, frames, given, size, samples)
    return max(moments, key=lambda moment: sum(moment.values()))  # the first of equals


def _block_buffers(manifest: Manifest, stage: StageName, phase: str, shape: RunShape) -> Moment:
    """Returns the arrays of one phase of `windowed.run_block`, whose pictures are prepared and delivered on the host.

    Windows are counted as in the strategy that has most, in the step that has most.
    """
    config = config_of(manifest)
    frames, block, objects = config.frames, max(shape.block, config.frames), shape.objects
    one = {name: _FLOAT32 * math.prod(dims) for name, dims in _shapes(manifest, config, stage, phase, shape).items()}
    latents = objects * block * _FLOAT32 * math.prod(_latents(config, shape))
    together = _WINDOWS_AT_ONCE * math.ceil(block / frames) if block > frames else 1
    apart = _WINDOWS * math.ceil(block / frames) if block > frames else 1
    held = {"conditioning": 2 * latents, "embeddings": objects * block * _FLOAT32 * config.image_encoder.width}
    if phase == "encode":
        group = {name: one[name] // (1 if name == "pixels" else 2) for name in ("frames", "pixels", "encoded")}
        return {**held, **group, "noise": one["noise"]}
    window = shape.rows * 2 * frames * _FLOAT32 * math.prod(_latents(config, shape))
    conditioner = manifest.components[manifest.tasks[stage].components["unet_conditioner"]]
    names = {tensor.name for tensor in conditioner.outputs} - {"time_table"}
    constants = {"windows": objects * apart * (window + sum(one.get(name, 0) for name in names))}
    if phase == "condition":
        inputs = {tensor.name: one[tensor.name] for tensor in conditioner.inputs}
        return {**held, **constants, **inputs, "time_table": one["time_table"]}
    if phase == "denoise":
        kept = dict.fromkeys(("latents", "scaled latents", "denoised", "last", "slope", "churn"), latents)
        calls = objects * together * (shape.rows + 1) * (window // shape.rows // 2)
        return {**held, **constants, **kept, "time_table": one["time_table"], "velocity": calls}
    chunk = shape.decode_chunk or config.decode_chunk
    pictures = min(chunk, frames) * 3 * math.prod(shape.size or config.size)
    return {"latents": latents, "decoded": _FLOAT32 * pictures, "unit": _FLOAT32 * pictures, "drawn": pictures}


def _latents(config: Config, shape: RunShape) -> Shape:
    """Returns the shape of one frame's latents."""
    height, width = shape.size or config.size
    return config.latent_channels, height // config.vae_factor, width // config.vae_factor


def _shapes(manifest: Manifest, config: Config, stage: StageName, phase: str, shape: RunShape) -> dict[str, Shape]:
    frames, clip = config.frames, config.image_encoder
    height, width = shape.size or config.size
    pictures = (frames, 3, height, width)
    latents = (frames, config.latent_channels, height // config.vae_factor, width // config.vae_factor)
    samples = shape.samples if stage == "segment" else 1
    conditioner = manifest.components[manifest.tasks[stage].components["unet_conditioner"]]
    free = {"rows": shape.rows, "steps": shape.steps}
    constants = {tensor.name: _bound(tensor, free) for tensor in conditioner.outputs}
    conditioning = {"conditioning": (samples, shape.rows, 2, *latents)}
    embeddings = {"embeddings": (frames, clip.width)}
    if phase == "depth":
        h, w = depth_size(config, shape)
        return {"pixels": (1, 3, h, w), "depth": (1, h, w)}
    if phase == "encode":
        # Both conditions and their noise; CLIP's input of the first; both latents before they are joined.
        both = {"frames": (2, *pictures), "noise": (2, *pictures)}
        pixels = (frames, 3, clip.side, clip.side)
        return {**both, "pixels": pixels, **embeddings, "encoded": (2, *latents), **conditioning}
    if phase == "condition":
        inputs = {tensor.name: _bound(tensor, free) for tensor in conditioner.inputs}
        return {**embeddings, **inputs, **constants, **conditioning}
    drawn = {"latents": (samples, *latents), "scaled latents": latents}
    if phase == "denoise":
        step = {"velocity": (shape.rows, *latents), "denoised": latents, "slope": latents, "churn": latents}
        return {**conditioning, **constants, **drawn, **step}
    # `pieces`: the decoder's outputs, before the chunks of a sample are joined.
    return {**drawn, "pieces": pictures, "decoded": (samples, *pictures)}


def _bound(tensor: TensorEntry, free: dict[str, int]) -> Shape:
    return tuple(free[n] if isinstance(n, str) else n for n in tensor.shape)


def _preparing(stage: StageName, frames: int, given: Size, size: Size, computed: bool) -> list[Moment]:
    """Returns the moments of preparing a stage's pictures.

    Args:
        given, size: (h, w) of the caller's pictures, and of the bundle's.
        computed: whether depth is computed, so that `segment` gets RGB.
    """
    pixels, raw = frames * size[0] * size[1], frames * given[0] * given[1]
    modal = _FLOAT32 * pixels
    moments = [
        {"raw masks": _MASKS * raw},
        {"raw masks": raw, "resized": 2 * pixels, **_resizing("pillow uint8", frames, given, size)},
    ]
    if stage == "complete" or computed:
        rgb = 3 * pixels
        moments += [
            {"modal": modal, "resized": 2 * rgb, **_resizing("pillow uint8", frames, given, size, 3)},
            {"modal": modal, "resized": rgb, "pictures": 2 * _FLOAT32 * rgb},
        ]
    if stage == "complete":
        moments.append({"modal": modal, "pictures": _FLOAT32 * rgb, "raw masks": _MASKS * raw, "whole": 2 * pixels})
    elif not computed:
        resized = 3 * _FLOAT32 * pixels
        moments.append({"modal": modal, "resized": resized, **_resizing("pillow float32", frames, given, size)})
    return moments


def delivering(stage: StageName, frames: int, given: Size, size: Size, samples: int) -> list[Moment]:
    """Returns the moments after the decoder; sizes as for `_preparing`.

    `complete` is counted with propagation, whose pictures and masks are uploaded once more.
    """
    pixels, full = frames * size[0] * size[1], frames * given[0] * given[1]
    same = given == size
    if stage == "segment":
        drawn, resized = samples * (3 + 1) * pixels, 0 if same else samples * full
        work: Moment = {"sums": _FLOAT32 * pixels} if same else {"resizing": frames * size[1] * given[0]}
    else:
        # The decoder's frames, the same with the known pixels in them, and the mask of these.
        drawn, resized = (3 + 3 + 1) * pixels, 0 if same else 3 * full
        work = {"pieces": resized, **_resizing("opencv uint8", frames, size, given, 3)}
    # A second copy of everything, to be sent to the host at once; frames that are not resized are in it twice.
    packed = drawn + (resized or (samples * full if stage == "segment" else 3 * full))
    moments = [{"drawn": drawn, "resized": resized, **work}, {"drawn": drawn, "resized": resized, "packed": packed}]
    return moments if stage == "segment" else [{"drawn": drawn, "shown": 3 * pixels}, *moments]


def _resizing(resampling: Resampling, frames: int, before: Size, after: Size, channels: int = 1) -> Moment:
    return {} if before == after else {"resizing": working_bytes(resampling, frames, before, after, channels)}
