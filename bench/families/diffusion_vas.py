"""A clip of Diffusion-VAS: a scene, through both stages or one, with the work's settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.model import Model
from amodal.runtime.sampling.schedule import Churn
from amodal.runtime.scenes import make_scene
from amodal.runtime.scenes.scene import Scene

from ..schema import Work

SCENE = 8
"""Seed of the scene that is run: its object is hidden wholly for a while."""

scene_of = lru_cache(2)(make_scene)


def run_of(work: Work, model: Model | None = None) -> RunShape:
    """A clip's run: as a loaded model makes it, or None for engines, with both CFG rows in one call."""
    shape = RunShape(tuple(work.stages), work.depth, work.guidance > 1, work.steps, work.samples, cfg_rows="batched")
    if model is None:
        return shape
    on_gpu = model.backend.xp is not np
    if not on_gpu and model.memory == "resident" and model.backend.lanes > 1:
        return replace(shape, cfg_rows="separate", on_gpu=False)
    planned = None if model.plan is None else model.plan.run
    return replace(shape, on_gpu=on_gpu, cfg_rows=planned.cfg_rows if isinstance(planned, RunShape) else "batched")


def tasks_of(work: Work, model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
    """See `amodal.bench.families.ClipMaker`; stages of one clip share the noise, and `complete` has the masks found."""
    scene: Scene = scene_of(SCENE, work.frames, work.size)
    settings: dict[str, Any] = {
        "steps": work.steps,
        "guidance": (work.guidance, work.guidance),
        "churn": Churn(work.churn),
    }
    found: list[Any] = []

    def segment() -> None:
        given: dict[str, Any] = {"rgb": scene.frames} if work.depth else {"depth": scene.depth}
        found.append(model.segment(scene.modal, seed=work.seed, samples=work.samples, **given, **settings))

    def complete() -> None:
        masks, seed = (found[0].masks, found[0].noise) if found else (scene.amodal, work.seed)
        # Networks alone, as peers have them: on the host propagation is a step of its own.
        model.complete(scene.frames, scene.modal, masks, seed=seed, propagate=False, **settings)

    run = {"segment": segment, "complete": complete}
    for stage in work.stages:
        yield stage, run[stage]
