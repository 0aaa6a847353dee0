"""The toy family at run time: what stands out in each picture, by a network that looks and one that decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from amodal.runtime.builds.store import Profile, make_profile
from amodal.runtime.bundle.manifest import Manifest
from amodal.runtime.errors import InputError
from amodal.runtime.execution.family import Task, Trial
from amodal.runtime.execution.run import Calls, ComponentCall, Phase, Run
from amodal.runtime.execution.session import Session, components_of
from amodal.runtime.scenes import make_scene

TASK, ROLES = "outline", ("look", "decide")


class ToyConfig(BaseModel):
    """Shape of the pictures, and how many of them the networks take at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    at_once: PositiveInt

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def outline(session: Session, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """From pictures uint8 [T, H, W, 3]: `scores` float32 [T, H, W], and `masks` where they are above 0."""
    config, xp = ToyConfig.model_validate(session.manifest.config), session.backend.xp
    if pictures.shape != (config.frames, *config.size, 3):
        raise InputError(f"pictures are {list(pictures.shape)}; expected {[config.frames, *config.size, 3]}.")
    keys = components_of(session.bundle, TASK)
    session.components.start_timing()
    with session.backend.active():
        x = xp.asarray((pictures.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32))
        for role, given, wanted in (("look", "pictures", "features"), ("decide", "features", "scores")):
            pieces = [{given: x[i : i + config.at_once]} for i in range(0, len(x), config.at_once)]
            with session.components.use(keys[role]) as network:
                x = xp.concatenate([made[wanted] for made in network.map(pieces)])
        scores: NDArray[np.float32] = session.backend.to_host(x)[:, 0]
    return {"scores": scores, "masks": scores > 0}


class Outline:
    """The one task."""

    def trial(self, session: Session, trial: Trial) -> dict[str, NDArray[Any]]:
        trial.progress(TASK)
        config = ToyConfig.model_validate(session.manifest.config)
        return outline(session, make_scene(trial.seed, config.frames, config.size).frames)


class Toy:
    """See `amodal.runtime.execution.family.Family`."""

    tasks: Mapping[str, Task] = {TASK: Outline()}

    def config(self, manifest: Manifest) -> ToyConfig:
        for task, entry in manifest.tasks.items():
            if task != TASK or set(entry.components) != set(ROLES):
                raise ValueError(f"{task} has {sorted(entry.components)}; expected {TASK} with {', '.join(ROLES)}")
        return ToyConfig.model_validate(manifest.config)

    def profiles(self, manifest: Manifest, component: str) -> tuple[Profile, ...]:
        most = ToyConfig.model_validate(manifest.config).at_once
        inputs = manifest.components[component].inputs
        return (make_profile(f"pictures<={most}", inputs, {"pictures": (1, most, most)}),)

    def calls(self, manifest: Manifest, run: Run | None = None) -> Calls:
        config, keys = ToyConfig.model_validate(manifest.config), manifest.tasks[TASK].components
        pieces = Counter(min(config.at_once, config.frames - i) for i in range(0, config.frames, config.at_once))
        pixels = 4 * config.frames * config.height * config.width
        buffers = {
            "look": {"pictures": 3 * pixels, "features": pixels},
            "decide": {"features": pixels, "scores": pixels},
        }
        phases = tuple(
            Phase(
                TASK,
                role,
                tuple(
                    ComponentCall(keys[role], {"pictures": size}, count, f"pictures<={config.at_once}")
                    for size, count in pieces.items()
                ),
                buffers[role],
            )
            for role in ROLES
        )
        return Calls(Run((TASK,)), phases)

    def run(self, task: str, session: Session, inputs: Any) -> Any:
        components_of(session.bundle, task)
        return outline(session, inputs)


FAMILY = Toy()
