"""The arrays that a run keeps on the device beside its engines: what each phase holds, from the manifest's shapes.

A run on a device holds at most these. Each lives for whole phases; what a later phase does not name is given back. A
phase that begins with pictures being prepared, or ends with results on their way out, has its arrays at the moment that
takes most. Arrays of a few numbers are left out.
"""

from __future__ import annotations

import math

from ...arrays.resampling import working_bytes
from ...builds.store import Shape
from ...bundle.manifest import Manifest, TensorEntry
from .config import Config, StageName, config_of
from .picture_memory import delivering, preparing
from .shape import RunShape

FLOAT32 = 4


def depth_size(config: Config, shape: RunShape) -> tuple[int, int]:
    """(h, w) at which the depth component sees a frame."""
    from ...pictures.depth import depth_input_size

    assert config.depth is not None
    if shape.size is None or shape.size == config.size:
        return config.depth.height, config.depth.width
    return depth_input_size(*shape.size)


def phase_buffers(manifest: Manifest, stage: StageName, phase: str, shape: RunShape) -> dict[str, int]:
    """Bytes of the arrays on the device in one phase, by name, at the moment that takes most."""
    config = config_of(manifest)
    size, frames = shape.size or config.size, config.frames
    given, samples = shape.given or size, shape.samples if stage == "segment" else 1
    running = {name: FLOAT32 * math.prod(dims) for name, dims in _shapes(manifest, config, stage, phase, shape).items()}
    computed = stage == "segment" and shape.depth and config.depth is not None
    pixels = frames * size[0] * size[1]
    moments = [running]
    if phase == "depth":
        h, w = depth_size(config, shape)
        held = {"modal": FLOAT32 * pixels, "pictures": 3 * FLOAT32 * pixels, "frames": 3 * pixels}
        held["maps"] = FLOAT32 * pixels
        # One frame in float64: as it was, while it is resized, and normalised.
        work = max(working_bytes("opencv float64", 1, size, (h, w), 3), 3 * 8 * 3 * h * w)
        moments = [{**held, **running}, {**held, "frame": 8 * 3 * size[0] * size[1], "resizing": work}]
        moments += preparing(stage, frames, given, size, computed)
    if phase == "encode" and not computed:
        moments += preparing(stage, frames, given, size, computed)
    if phase == "decode":
        quantised = {"latents": running["latents"], "decoded": running["decoded"], "unit": running["pieces"]}
        moments += [{**quantised, "drawn": (samples + 1) * 3 * pixels}]
        moments += delivering(stage, frames, given, size, samples)
    return max(moments, key=lambda moment: sum(moment.values()))  # the first of equals


def _shapes(manifest: Manifest, config: Config, stage: StageName, phase: str, shape: RunShape) -> dict[str, Shape]:
    frames, channels = config.frames, config.latent_channels
    height, width = shape.size or config.size
    pictures = (frames, 3, height, width)
    latents = (frames, channels, height // config.vae_factor, width // config.vae_factor)
    samples = shape.samples if stage == "segment" else 1
    components = manifest.tasks[stage].components
    conditioner = manifest.components[components["unet_conditioner"]]
    free = {"rows": shape.rows, "steps": shape.steps}
    constants = {tensor.name: _bound(tensor, free) for tensor in conditioner.outputs}
    conditioning = {"conditioning": (samples, shape.rows, 2, *latents)}
    clip = config.image_encoder
    embeddings = {"embeddings": (frames, clip.width)}
    if phase == "depth":
        h, w = depth_size(config, shape)
        return {"pixels": (1, 3, h, w), "depth": (1, h, w)}
    if phase == "encode":
        # Both conditions and their noise; then what CLIP sees of the first, and both latents before they are joined.
        return {
            "frames": (2, *pictures),
            "noise": (2, *pictures),
            "pixels": (frames, 3, clip.side, clip.side),
            **embeddings,
            "encoded": (2, *latents),
            **conditioning,
        }
    if phase == "condition":
        inputs = {tensor.name: _bound(tensor, free) for tensor in conditioner.inputs}
        return {**embeddings, **inputs, **constants, **conditioning}
    drawn = {"latents": (samples, *latents), "scaled latents": latents}
    if phase == "denoise":
        step = {"velocity": (shape.rows, *latents), "denoised": latents, "slope": latents, "churn": latents}
        return {**conditioning, **constants, **drawn, **step}
    # `pieces`: what the decoder gave, before the chunks of a sample are joined.
    return {**drawn, "pieces": pictures, "decoded": (samples, *pictures)}


def _bound(tensor: TensorEntry, free: dict[str, int]) -> Shape:
    return tuple(free[n] if isinstance(n, str) else n for n in tensor.shape)
