"""What GPU memory a run takes, phase by phase, known before anything is loaded.

Weights and activations come from the records that building engines left, arrays from the manifest's shapes. The CUDA
context (some hundred MB, by GPU and driver) is in no sum: nothing but a GPU can tell it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from ..builds.store import EngineRecord
from ..bundle.manifest import Manifest, StageName
from ..errors import EngineStaleError, InputError
from ..execution.components import Memory
from .buffers import PhaseName, RunShape, buffers_of, depth_size, needed_components, phases_of, stages_of

CfgCalls = Literal["batched", "separate"]


@dataclass(frozen=True)
class Footprint:
    """Device memory of a component: its weights, and what running takes, by the engine's profile."""

    weights: int
    activations: Mapping[str, int]


def footprints_of(records: Iterable[EngineRecord]) -> dict[str, Footprint]:
    """What the engines' records say, by component."""
    return {r.key.component: Footprint(r.weights_bytes, r.activation_bytes) for r in records}


@dataclass(frozen=True)
class Phase:
    """One phase of a stage.

    Attributes:
        resident: weights that are loaded, by component, in bytes.
        runs: the component that runs at the phase's peak.
        scratch: activations in bytes.
        buffers: arrays on the device, in bytes.
    """

    stage: StageName
    name: PhaseName
    resident: dict[str, int]
    runs: str
    scratch: int
    buffers: dict[str, int]

    @property
    def resident_bytes(self) -> int:
        """All weights that are loaded."""
        return sum(self.resident.values())

    @property
    def buffer_bytes(self) -> int:
        """All arrays."""
        return sum(self.buffers.values())

    @property
    def peak_bytes(self) -> int:
        """Weights, scratch and arrays together."""
        return self.resident_bytes + self.scratch + self.buffer_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes on the device.

    Attributes:
        memory: `resident` or `sequential`.
        cfg_rows: both CFG rows in one call, or one after the other.
        shape: the run, its stages named.
        weights: of each component that the run uses, in bytes.
        activations: what running each takes, in bytes.
        phases: in the order of the run.
        estimated: whether the engines' records are of another frame size or decode chunk.
        context_bytes: of the CUDA context; not known without a GPU, and in no sum.
    """

    memory: Memory
    cfg_rows: CfgCalls
    shape: RunShape
    weights: dict[str, int]
    activations: dict[str, int]
    phases: tuple[Phase, ...]
    estimated: bool
    context_bytes: int | None = None

    @property
    def peak(self) -> Phase:
        """The phase that takes most; the first of equals."""
        return max(self.phases, key=lambda phase: phase.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most that is taken at any time."""
        return self.peak.peak_bytes

    def fits(self, budget: int | None) -> bool:
        """Whether a budget in bytes is enough; no budget always is."""
        return budget is None or self.peak_bytes <= budget

    def as_json(self) -> dict[str, Any]:
        """Plain form, with the sums."""
        return {
            "memory": self.memory,
            "cfg_rows": self.cfg_rows,
            "shape": {**asdict(self.shape), "stages": list(self.shape.stages), "size": _listed(self.shape.size)}
            | {"given": _listed(self.shape.given)},
            "estimated": self.estimated,
            "peak_bytes": self.peak_bytes,
            "weights_bytes": sum(self.weights.values()),
            "context_bytes": self.context_bytes,
            "components": {
                key: {"weights_bytes": weights, "activation_bytes": self.activations[key]}
                for key, weights in self.weights.items()
            },
            "phases": [
                {
                    "stage": phase.stage,
                    "phase": phase.name,
                    "runs": phase.runs,
                    "resident": phase.resident,
                    "scratch_bytes": phase.scratch,
                    "buffers": phase.buffers,
                    "peak_bytes": phase.peak_bytes,
                }
                for phase in self.phases
            ],
        }


def plan_memory(
    manifest: Manifest,
    footprints: Mapping[str, Footprint],
    shape: RunShape,
    memory: Memory,
    cfg_rows: CfgCalls,
) -> MemoryPlan:
    """The memory of one run.

    `resident`: the weights of all components of the run are loaded in every phase, as they are from the second clip
    on; one scratch, as large as the largest needs, is shared by all. `sequential`: only the component that runs, with
    its own activations; of the two components of a phase the one that takes more.

    Args:
        footprints: of every component that the run uses.
        shape: the run. For another frame size, activations grow with the area (an attention that is not fused grows
            faster) and arrays as their shapes say; with a smaller decode chunk, the decoder's shrink with it.

    Raises:
        InputError: a stage that the bundle lacks, a frame size that it cannot have, or a decode chunk that its
            engines do not take.
        EngineStaleError: a footprint that lacks the profile that is asked for.
    """
    shape = _resolved(manifest, shape)
    keys = needed_components(manifest, shape)
    weights = {key: footprints[key].weights for key in keys}
    activations = {key: _activations(manifest, key, footprints[key], shape, cfg_rows) for key in keys}
    phases = []
    for stage, name, running in phases_of(manifest, shape):
        if memory == "resident":
            runs = max(running, key=lambda key: activations[key])
            loaded, scratch = weights, max(activations.values())
        else:
            runs = max(running, key=lambda key: weights[key] + activations[key])
            loaded, scratch = {runs: weights[runs]}, activations[runs]
        phases.append(Phase(stage, name, loaded, runs, scratch, buffers_of(manifest, stage, name, shape)))
    estimated = shape.size != manifest.size or shape.decode_chunk != _largest_chunk(manifest)
    return MemoryPlan(memory, cfg_rows, shape, weights, activations, tuple(phases), estimated)


def frame_multiple(manifest: Manifest) -> int:
    """What height and width of another frame size must be divisible by: the VAE's factor, and 8 for the U-Net."""
    return 8 * manifest.vae_factor


def parse_bytes(text: str) -> int:
    """`6GB`, `6.5GB`, `800MB` or `6GiB` in bytes; GB = 1e9, GiB = 2**30.

    Raises:
        InputError: anything else, or nothing.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(i?))?b\s*", text, re.IGNORECASE | re.ASCII)
    power = "kmgt".find(found[2].lower()) + 1 if found and found[2] else 0
    count = int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if count < 1:
        raise InputError(f"{text!r} is no amount of memory; expected a number and its unit, for instance 6GB or 800MB.")
    return count


def _resolved(manifest: Manifest, shape: RunShape) -> RunShape:
    size, multiple = shape.size or manifest.size, frame_multiple(manifest)
    if size != manifest.size and any(n < 1 or n % multiple for n in size):
        nearest = ["x".join(str(max(f(n / multiple), 1) * multiple) for n in size) for f in (math.floor, math.ceil)]
        are = " and ".join(dict.fromkeys(nearest))
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit: frames are multiples of {multiple}; the nearest: {are}.",
            field="size",
        )
    largest = _largest_chunk(manifest)
    chunk = min(manifest.decode_chunk if shape.decode_chunk is None else shape.decode_chunk, manifest.frames)
    if not 1 <= chunk <= largest:
        raise InputError(
            f"`decode_chunk={chunk}`: these engines decode 1 to {largest} frames at once; for more, export the bundle "
            f"again with `amodal export --decode-chunk {chunk}`.",
            field="decode_chunk",
        )
    stages = stages_of(manifest, shape)
    depth = shape.depth and manifest.depth is not None and "segment" in stages
    return replace(shape, stages=stages, depth=depth, decode_chunk=chunk, size=size)


def _largest_chunk(manifest: Manifest) -> int:
    return min(manifest.decode_chunk, manifest.frames)


def _activations(manifest: Manifest, key: str, footprint: Footprint, shape: RunShape, cfg_rows: CfgCalls) -> int:
    kind = manifest.components[key].kind
    profiles = footprint.activations
    profile = f"rows={shape.rows if cfg_rows == 'batched' else 1}"
    if not profiles or (kind == "unet" and profile not in profiles):
        has = ", ".join(profiles) or "none"
        raise EngineStaleError(
            f"the engine of {key} lacks the profile {profile} (it has: {has}); build it again with `amodal build`."
        )
    size = profiles[profile] if kind == "unet" else max(profiles.values())
    assert shape.size is not None
    assert shape.decode_chunk is not None
    if kind == "vae_decoder":
        size = _scaled(size, shape.decode_chunk, _largest_chunk(manifest))
    if kind in ("vae_encoder", "unet", "vae_decoder"):
        size = _scaled(size, math.prod(shape.size), math.prod(manifest.size))
    if manifest.depth is not None and kind == "depth":
        size = _scaled(size, math.prod(depth_size(manifest, shape)), manifest.depth.height * manifest.depth.width)
    return size


def _scaled(size: int, part: int, whole: int) -> int:
    """`size * part / whole`, rounded up."""
    return -(-size * part // whole)


def _listed(size: tuple[int, int] | None) -> list[int] | None:
    return None if size is None else list(size)
