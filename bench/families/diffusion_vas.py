"""A clip of Diffusion-VAS: a scene through one stage or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.model import Model
from amodal.runtime.sampling.schedule import Churn
from amodal.runtime.scenes import make_scene

from ..schema import Work

SCENE = 8
"""Seed of the scene: its object is completely hidden for a while."""

scene_of = lru_cache(2)(make_scene)


def sampler_keywords(steps: int, guidance: float, churn: float) -> dict[str, Any]:
    """Returns the sampler's settings as keyword arguments of `Model.segment` and `Model.complete`."""
    return {"steps": steps, "guidance": (guidance, guidance), "churn": Churn(churn)}


def run_of(work: Work, model: Model | None = None) -> RunShape:
    """See `amodal.bench.families.ClipMaker`; on engines, both CFG rows are one call."""
    shape = RunShape(tuple(work.stages), work.depth, work.guidance > 1, work.steps, work.samples, cfg_rows="batched")
    if model is None:
        return shape
    on_gpu = model.backend.on_gpu
    if not on_gpu and model.memory == "resident" and model.backend.lanes > 1:
        return replace(shape, cfg_rows="separate", on_gpu=False)
    planned = None if model.plan is None else model.plan.run
    return replace(shape, on_gpu=on_gpu, cfg_rows=planned.cfg_rows if isinstance(planned, RunShape) else "batched")


def tasks_of(work: Work, model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
    """See `ClipMaker`. The stages of a clip share their noise, and `complete` takes the masks of `segment`."""
    scene = scene_of(SCENE, work.frames, work.size)
    settings = sampler_keywords(work.steps, work.guidance, work.churn)
    found: list[Any] = []

    def segment() -> None:
        depth: dict[str, Any] = {"rgb": scene.frames} if work.depth else {"depth": scene.depth}
        found.append(model.segment(scene.modal, seed=work.seed, samples=work.samples, **depth, **settings))

    def complete() -> None:
        masks, seed = (found[0].masks, found[0].noise) if found else (scene.amodal, work.seed)
        # Without propagation, which runs on the host: peers run the networks alone.
        model.complete(scene.frames, scene.modal, masks, seed=seed, propagate=False, **settings)

    run = {"segment": segment, "complete": complete}
    for stage in work.stages:
        yield stage, run[stage]
