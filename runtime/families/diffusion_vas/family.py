"""Diffusion-VAS as a family: `segment` turns visible masks and depth into whole masks, `complete` draws their RGB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...execution.family import Task, Trial
from ...execution.session import Session, components_of
from ...pictures.images import prepare_rgb
from ...scenes import make_scene
from . import calls as description
from .config import STAGES, StageName, check
from .running import CompleteInputs, Request, SegmentInputs, find_depth, run_complete, run_segment
from .settings import Settings
from .streaming import open_stream


class StageTask:
    """One of the two tasks, each of which is a stage."""

    def __init__(self, name: StageName) -> None:
        self.name = name

    def trial(self, session: Session, trial: Trial) -> dict[str, NDArray[Any]]:
        """Runs the stage on a scene; `complete` gets the true masks, so that it does not depend on `segment`.

        Returns:
            `latents` float32 [T, 4, h, w] of the last step, `frames` uint8 [T, H, W, 3] and, from `segment`, `masks`
            bool [T, H, W].
        """
        config = check(session.manifest)
        scene = make_scene(trial.seed, config.frames, config.size)
        keys = dict(components_of(session.bundle, self.name))
        wanted = {*(keys.values() if trial.components is None else trial.components)}
        if keys.pop("depth", None) in wanted:
            trial.progress("depth")
            with session.backend.active():
                find_depth(session, prepare_rgb(scene.frames[:1], config.size, session.backend.xp))
        if not wanted & {*keys.values()}:
            return {}
        latents: list[NDArray[np.float32]] = []

        def after(step: int, sigma: float, x: Any) -> None:
            latents[:] = [np.array(session.backend.to_host(x))]
            trial.progress(self.name, f"step {step + 1} of {trial.steps}", step, trial.steps)

        trial.progress(self.name)
        request = Request(Settings(steps=trial.steps), trial.seed, callback=after, propagate=False)
        if self.name == "segment":
            seen = run_segment(session, SegmentInputs(scene.modal, scene.depth, request=request, depth_kind="relative"))
            return {"latents": latents[0], "frames": seen.frames, "masks": seen.masks}
        whole = run_complete(session, CompleteInputs(scene.frames, scene.modal, scene.amodal, request))
        return {"latents": latents[0], "frames": whole.frames}


class DiffusionVas:
    """The family; see `amodal.runtime.execution.family.Family`."""

    tasks: Mapping[str, Task] = {name: StageTask(name) for name in STAGES}
    config = staticmethod(check)
    profiles = staticmethod(description.profiles)
    calls = staticmethod(description.calls)
    open_stream = staticmethod(open_stream)

    def run(self, task: str, session: Session, inputs: Any) -> Any:
        """Runs `segment` on `SegmentInputs`, or `complete` on `CompleteInputs`; see `Model` for results and errors."""
        components_of(session.bundle, task)
        if isinstance(inputs, SegmentInputs):
            return run_segment(session, inputs)
        if isinstance(inputs, CompleteInputs):
            return run_complete(session, inputs)
        raise InputError(f"{task} was given {type(inputs).__name__}; expected SegmentInputs or CompleteInputs.")


FAMILY = DiffusionVas()
