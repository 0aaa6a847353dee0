"""The arrays that a run keeps on the device beside its engines: what each phase holds, from the manifest's shapes.

A run on a device holds at most these. Each lives for whole phases; what a later phase does not name is given back. A
phase that begins with pictures being prepared, or ends with results on their way out, has its arrays at the moment that
takes most. Arrays of a few numbers are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..arrays.resampling import working_bytes
from ..builds.store import Shape
from ..bundle.manifest import Manifest, StageName, TensorEntry
from ..errors import InputError
from ..families.diffusion_vas.stage import CfgRows
from .pictures import delivering, preparing

PhaseName = Literal["depth", "encode", "condition", "denoise", "decode"]

PHASE_KINDS: dict[PhaseName, tuple[str, ...]] = {
    "depth": ("depth",),
    "encode": ("image_encoder", "vae_encoder"),
    "condition": ("unet_conditioner",),
    "denoise": ("unet",),
    "decode": ("vae_decoder",),
}
"""The phases of a stage, in their order, and the kinds of component that run in each, one after the other."""

FLOAT32 = 4


@dataclass(frozen=True)
class RunShape:
    """What of a run decides its memory.

    Attributes:
        stages: those that run; empty for all of the bundle's.
        depth: whether `segment` computes depth, if the bundle has the component for it.
        guided: whether there is an unconditional row.
        steps: sampler steps.
        samples: seeds that `segment` draws.
        decode_chunk: frames decoded at once; None for the bundle's.
        cfg_rows: both CFG rows in one call, or one after the other; `auto` for either.
        size: (H, W) of the frames; None for the bundle's. Any other is an estimate, of a bundle yet to be exported.
        given: (h, w) of the pictures that are handed over; None for that size.
    """

    stages: tuple[StageName, ...] = ()
    depth: bool = True
    guided: bool = True
    steps: int = 25
    samples: int = 1
    decode_chunk: int | None = None
    cfg_rows: CfgRows = "auto"
    size: tuple[int, int] | None = None
    given: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """CFG rows of the run, in however many calls."""
        return 2 if self.guided else 1


def stages_of(manifest: Manifest, shape: RunShape) -> tuple[StageName, ...]:
    """The stages that run, in their order.

    Raises:
        InputError: one that the bundle lacks.
    """
    order: tuple[StageName, ...] = ("segment", "complete")
    for stage in shape.stages:
        if stage not in manifest.stages:
            raise InputError(
                f"the bundle has no {stage} stage; export it again with `amodal export --{stage} CHECKPOINT`."
            )
    return tuple(s for s in order if s in (shape.stages or manifest.stages))


def phases_of(manifest: Manifest, shape: RunShape) -> list[tuple[StageName, PhaseName, tuple[str, ...]]]:
    """The phases of a run in their order: stage, phase, and the keys of the components that run in it."""
    found: list[tuple[StageName, PhaseName, tuple[str, ...]]] = []
    for stage in stages_of(manifest, shape):
        keys = manifest.stages[stage].components
        for phase, kinds in PHASE_KINDS.items():
            if phase != "depth":
                found.append((stage, phase, tuple(keys[kind] for kind in kinds)))
            elif stage == "segment" and shape.depth and manifest.depth is not None:
                found.append((stage, phase, ("depth",)))
    return found


def needed_components(manifest: Manifest, shape: RunShape) -> tuple[str, ...]:
    """Keys of the components that a run uses, in the order of their first use."""
    return tuple(dict.fromkeys(key for *_, keys in phases_of(manifest, shape) for key in keys))


def depth_size(manifest: Manifest, shape: RunShape) -> tuple[int, int]:
    """(h, w) at which the depth component sees a frame."""
    from ..pictures.depth import depth_input_size

    assert manifest.depth is not None
    if shape.size is None or shape.size == manifest.size:
        return manifest.depth.height, manifest.depth.width
    return depth_input_size(*shape.size)


def buffers_of(manifest: Manifest, stage: StageName, phase: PhaseName, shape: RunShape) -> dict[str, int]:
    """Bytes of the arrays on the device in one phase, by name, at the moment that takes most."""
    size, frames = shape.size or manifest.size, manifest.frames
    given, samples = shape.given or size, shape.samples if stage == "segment" else 1
    running = {name: FLOAT32 * math.prod(dims) for name, dims in _shapes(manifest, stage, phase, shape).items()}
    computed = stage == "segment" and shape.depth and manifest.depth is not None
    pixels = frames * size[0] * size[1]
    moments = [running]
    if phase == "depth":
        h, w = depth_size(manifest, shape)
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


def _shapes(manifest: Manifest, stage: StageName, phase: PhaseName, shape: RunShape) -> dict[str, Shape]:
    frames, channels = manifest.frames, manifest.latent_channels
    height, width = shape.size or manifest.size
    pictures = (frames, 3, height, width)
    latents = (frames, channels, height // manifest.vae_factor, width // manifest.vae_factor)
    samples = shape.samples if stage == "segment" else 1
    components = manifest.stages[stage].components
    conditioner = manifest.components[components["unet_conditioner"]]
    free = {"rows": shape.rows, "steps": shape.steps}
    constants = {tensor.name: _bound(tensor, free) for tensor in conditioner.outputs}
    conditioning = {"conditioning": (samples, shape.rows, 2, *latents)}
    clip = manifest.image_encoder
    embeddings = {"embeddings": (frames, clip.width)}
    if phase == "depth":
        h, w = depth_size(manifest, shape)
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
