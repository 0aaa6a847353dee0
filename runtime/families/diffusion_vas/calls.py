"""The calls that a run of Diffusion-VAS makes: which component runs how often, on which shapes.

The stage, the engines' profiles, the memory plan and the benchmarks' cost model all split clips as described here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from ...builds.store import Profile, make_profile
from ...bundle.manifest import Manifest, TensorEntry
from ...errors import InputError
from ...execution.run import Calls, ComponentCall, Phase, Run
from .buffers import depth_size, phase_buffers
from .config import STAGES, Config, StageName, config_of
from .shape import RunShape

ENCODE_FRAMES = 5
"""Frames that the VAE encodes at once on a GPU: half the memory of ten, and the GPU is still fully used."""
LARGEST_STEPS = 200
"""The most sampler steps that a conditioner's engine accepts."""
_CLIP_FRAMES = 5  # frames that CLIP encodes at once on a CPU

PHASE_ROLES: dict[str, tuple[str, ...]] = {
    "depth": ("depth",),
    "encode": ("image_encoder", "vae_encoder"),
    "condition": ("unet_conditioner",),
    "denoise": ("unet",),
    "decode": ("vae_decoder",),
}
"""The phases of a stage in order, and the roles of the components that run in each, one after the other."""


def frames_at_once(frames: int, decode_chunk: int, on_gpu: bool) -> dict[str, int]:
    """Returns how many of a clip's frames each component takes in one call.

    On a CPU the VAE encodes one frame at a time, which takes the least memory and was no slower than five.
    """
    clip, vae = (frames, min(ENCODE_FRAMES, frames)) if on_gpu else (min(_CLIP_FRAMES, frames), 1)
    return {"depth": 1, "image_encoder": clip, "vae_encoder": vae, "vae_decoder": min(decode_chunk, frames)}


def calls(manifest: Manifest, run: Run | None = None) -> Calls:
    """Returns every call of a run; see `amodal.runtime.execution.family.Family`.

    For another frame size, activations are taken to grow with the area (unfused attention grows faster); with a decode
    chunk that has no profile of its own, those of the decoder shrink with it.

    Raises:
        InputError: a stage that the bundle lacks, a frame size that no bundle can have, or a decode chunk that its
            engines do not accept.
    """
    config = config_of(manifest)
    shape = _resolved(manifest, config, run)
    phases = [
        Phase(stage, name, tuple(made), phase_buffers(manifest, stage, name, shape))
        for stage in STAGES
        if stage in shape.tasks
        for name, made in _phases(manifest, config, stage, shape)
    ]
    return Calls(shape, tuple(phases), any(call.share != 1 for phase in phases for call in phase.calls))


def profiles(manifest: Manifest, component: str) -> tuple[Profile, ...]:
    """Returns the profiles of a component's engine; see `amodal.runtime.execution.family.Family`."""
    config, entry = config_of(manifest), manifest.components[component]
    return profiles_of(entry.kind, entry.inputs, config.frames, config.decode_chunk)


def profiles_of(kind: str, inputs: Sequence[TensorEntry], frames: int, decode_chunk: int) -> tuple[Profile, ...]:
    """Returns the profiles of a component of some kind (its role), with the inputs of its graph.

    A profile of one shape takes less memory than a range, and needs no kernels compiled for shapes as they come. `unet`
    has one for a single CFG row and one for both. The others have one for each number of frames that `calls` names by
    default, and `vae_decoder` a range for smaller decode chunks.
    """
    if kind == "unet":
        return tuple(make_profile(f"rows={rows}", inputs, {"rows": (rows, rows, rows)}) for rows in (1, 2))
    if kind == "unet_conditioner":
        return (make_profile("any", inputs, {"rows": (1, 2, 2), "steps": (1, 25, LARGEST_STEPS)}),)
    accepted = _FrameProfiles.of(kind, frames, decode_chunk)
    free = {n: (n, n, n) for n in accepted.fixed} | (
        {accepted.most: (1, accepted.most, accepted.most)} if accepted.most else {}
    )
    return tuple(make_profile(accepted.name(n), inputs, {"frames": sizes}) for n, sizes in free.items())


class _FrameProfiles(NamedTuple):
    """The numbers of frames that an engine takes: each of `fixed`, and a range up to `most`, 0 for no range."""

    fixed: tuple[int, ...]
    most: int

    @classmethod
    def of(cls, kind: str, frames: int, decode_chunk: int) -> _FrameProfiles:
        size = frames_at_once(frames, decode_chunk, on_gpu=True)[kind]
        fixed = tuple(_pieces(frames, size))
        others = [n for n in range(1, size) if n not in fixed] if kind == "vae_decoder" else []
        return cls(fixed, max(others, default=0))

    def _in_range(self, frames: int) -> bool:
        return frames not in self.fixed and frames <= self.most

    def name(self, frames: int) -> str:
        return f"frames<={self.most}" if self._in_range(frames) else f"frames={frames}"

    def share(self, frames: int) -> Fraction:
        return Fraction(frames, self.most) if self._in_range(frames) else Fraction(1)


def _pieces(frames: int, size: int) -> Counter[int]:
    """Counts the pieces of a clip that is cut into `size` frames each, by their number of frames."""
    return Counter(min(size, frames - start) for start in range(0, frames, size))


def _phases(
    manifest: Manifest, config: Config, stage: StageName, shape: RunShape
) -> Iterator[tuple[str, list[ComponentCall]]]:
    """Yields the name and the calls of each phase, in order."""
    keys = manifest.tasks[stage].components
    chunk = shape.decode_chunk or config.decode_chunk
    at_once = frames_at_once(config.frames, chunk, shape.on_gpu)
    samples = shape.samples if stage == "segment" else 1
    assert shape.size is not None
    area = Fraction(math.prod(shape.size), math.prod(config.size))

    def over_frames(role: str, times: int = 1, share: Fraction = Fraction(1)) -> list[ComponentCall]:
        accepted = _FrameProfiles.of(role, config.frames, config.decode_chunk)
        return [
            ComponentCall(keys[role], {"frames": n}, times * count, accepted.name(n), share * accepted.share(n))
            for n, count in _pieces(config.frames, at_once[role]).items()
        ]

    # Objects and windows of T frames; the second condition of `segment`, depth, is encoded once for all objects.
    windows, objects = max(math.ceil(shape.block / config.frames), 1), shape.objects
    encoded = objects + 1 if stage == "segment" else 2 * objects
    if stage == "segment" and shape.depth and config.depth is not None:
        network = Fraction(math.prod(depth_size(config, shape)), config.depth.height * config.depth.width)
        yield "depth", over_frames("depth", windows, network)
    # Both conditions are encoded for every sample, because its noise is added to them first.
    masks = over_frames("image_encoder", windows * objects)
    yield "encode", [*masks, *over_frames("vae_encoder", windows * encoded * samples, area)]
    axes = {"rows": shape.rows, "steps": shape.steps}
    yield "condition", [ComponentCall(keys["unet_conditioner"], axes, windows * objects, "any")]
    batches = shape.rows if shape.cfg_rows == "separate" else 1
    rows = shape.rows // batches
    count = batches * shape.steps * samples * windows * objects
    yield "denoise", [ComponentCall(keys["unet"], {"rows": rows}, count, f"rows={rows}", area)]
    yield "decode", over_frames("vae_decoder", samples * windows * objects, area)


def _resolved(manifest: Manifest, config: Config, run: Run | None) -> RunShape:
    shape = run if isinstance(run, RunShape) else RunShape(*((run.tasks,) if run else ()))
    for stage in shape.tasks:
        if stage not in manifest.tasks:
            raise InputError(
                f"the bundle has no {stage} stage; export it again with `amodal export --{stage} CHECKPOINT`."
            )
    tasks = tuple(stage for stage in STAGES if stage in (shape.tasks or manifest.tasks))
    size, multiple = shape.size or config.size, config.multiple
    if size != config.size and any(n < 1 or n % multiple for n in size):
        nearest = ["x".join(str(max(f(n / multiple), 1) * multiple) for n in size) for f in (math.floor, math.ceil)]
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit: expected multiples of {multiple}; the nearest: "
            f"{' and '.join(dict.fromkeys(nearest))}.",
            field="size",
        )
    largest = min(config.decode_chunk, config.frames)
    chunk = min(config.decode_chunk if shape.decode_chunk is None else shape.decode_chunk, config.frames)
    if shape.on_gpu and not 1 <= chunk <= largest:
        raise InputError(
            f"`decode_chunk={chunk}`: these engines decode 1 to {largest} frames at once; for more, export the bundle "
            f"again with `amodal export --decode-chunk {chunk}`.",
            field="decode_chunk",
        )
    depth = shape.depth and config.depth is not None and "segment" in tasks
    return replace(shape, tasks=tasks, depth=depth, decode_chunk=chunk, size=size)
