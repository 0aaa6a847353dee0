"""What a whole clip takes: which calls of which components it makes, and the counts of `flops.py` over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from amodal.runtime.backends import Backend
from amodal.runtime.builds.store import ENCODE_FRAMES
from amodal.runtime.bundle.manifest import Manifest, StageName
from amodal.runtime.bundle.reading import Bundle
from amodal.runtime.execution.components import Memory
from amodal.runtime.memory.plan import CfgCalls

from ..schema import ComponentCost, Work
from .flops import Cost, count_graph, graph_of

_CLIP_FRAMES = 5
"""Frames that CLIP sees at once on a CPU; see `amodal.runtime.families.diffusion_vas.stage`."""


@dataclass(frozen=True)
class Batching:
    """How a clip is cut into calls.

    Attributes:
        on_gpu: more frames at once.
        cfg_rows: both CFG rows in one call, or each in its own.
    """

    on_gpu: bool = True
    cfg_rows: CfgCalls = "batched"

    @classmethod
    def of(cls, backend: Backend, memory: Memory, cfg_rows: CfgCalls = "batched") -> Batching:
        """That of a backend; `cfg_rows` is what a memory plan says where there is one."""
        on_gpu = backend.xp is not np
        side_by_side = not on_gpu and memory == "resident" and backend.lanes > 1
        return cls(on_gpu, "separate" if side_by_side else cfg_rows)


Axes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Calls:
    """The calls of one component in one stage of a clip.

    Attributes:
        name: stage and kind, `segment/unet`; depth belongs to `segment`.
        component: its key in the bundle.
        axes: sizes of the free axes -> how often it is called with them.
    """

    name: str
    component: str
    axes: Mapping[Axes, int]


def calls_of(manifest: Manifest, work: Work, way: Batching) -> Iterator[Calls]:
    """The calls that `amodal.runtime` makes for a clip, in their order.

    Depth is computed if the bundle has the component for it. Samples are drawn by `segment` alone, and share CLIP,
    depth and the conditioner.
    """
    frames = manifest.frames
    rows = 2 if work.guidance > 1 else 1
    for stage in work.stages:
        keys = manifest.stages[stage].components
        samples = work.samples if stage == "segment" else 1
        if stage == "segment" and manifest.depth is not None:
            yield _calls(stage, "depth", "depth", _chunks(frames, 1))
        clip = frames if way.on_gpu else _CLIP_FRAMES
        yield _calls(stage, "image_encoder", keys["image_encoder"], _chunks(frames, clip))
        encoded = _chunks(frames, ENCODE_FRAMES if way.on_gpu else 1)
        yield _calls(stage, "vae_encoder", keys["vae_encoder"], encoded, 2 * samples)  # of two conditions
        conditioner: Axes = (("rows", rows), ("steps", work.steps))
        yield _calls(stage, "unet_conditioner", keys["unet_conditioner"], {conditioner: 1})
        batches = 1 if way.cfg_rows == "batched" else rows
        unet: Axes = (("rows", rows // batches),)
        yield _calls(stage, "unet", keys["unet"], {unet: batches * work.steps}, samples)
        yield _calls(stage, "vae_decoder", keys["vae_decoder"], _chunks(frames, manifest.decode_chunk), samples)


def count_clip(bundle: Bundle, work: Work, way: Batching | None = None) -> list[ComponentCost]:
    """Operations and bytes of a clip by component; nothing is run, and no weight is read.

    Args:
        way: of cutting it into calls; None for that of engines, both CFG rows in one call.

    Raises:
        MissingDependencyError: onnx is not installed.
        BundleError: a graph cannot be read, or its shapes cannot be told.
    """
    known: dict[tuple[str, Axes], Cost] = {}

    def cost(component: str, axes: Axes) -> Cost:
        if (component, axes) not in known:
            known[component, axes] = count_graph(graph_of(bundle, component), dict(axes))
        return known[component, axes]

    found = []
    for calls in calls_of(bundle.manifest, work, way or Batching()):
        total = reduce(add, (cost(calls.component, axes) * times for axes, times in calls.axes.items()))
        found.append(
            ComponentCost(
                component=calls.name,
                precision=bundle.component(calls.component).precision,
                calls=sum(calls.axes.values()),
                flops={str(kind): count for kind, count in total.flops.items()},
                weights=total.weights,
                activations=total.activations,
                boundary=total.boundary,
            )
        )
    return found


def _calls(stage: StageName, kind: str, component: str, axes: Mapping[Axes, int], times: int = 1) -> Calls:
    return Calls(f"{stage}/{kind}", component, {at: times * count for at, count in axes.items()})


def _chunks(frames: int, size: int) -> Counter[Axes]:
    """`frames` in pieces of at most `size`."""
    return Counter((("frames", min(size, frames - start)),) for start in range(0, frames, size))
