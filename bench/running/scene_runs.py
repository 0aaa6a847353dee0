"""Scenes whose truth is known, run through a bundle in worker processes: what all measures of quality start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from amodal.runtime.families.diffusion_vas.config import ContextLayout
from amodal.runtime.model import Model, load
from amodal.runtime.sampling.denoiser import is_guided
from amodal.runtime.sampling.schedule import Churn
from amodal.runtime.scenes import make_scene

from ..quality import ClipPrediction, ClipTruth
from .clips import Execution
from .process import new_processes

FIRST_SEED = 500_000  # of unseen scenes: below those of the training, above those that people look at
SEED = 23
_ONE_THREAD = Execution(threads=1)


@dataclass(frozen=True)
class Setting:
    """How a clip is run; see `amodal.runtime.families.diffusion_vas.stage.Settings`.

    Attributes:
        true_masks: whether stage `complete` paints the scene's own whole-object masks instead of the predicted ones.
        propagate: whether it carries hidden pixels over from other frames; None for what the bundle says.
    """

    bundle: str = "default"
    steps: int = 25
    guidance: float = 1.5
    churn: float = 0.0
    context: ContextLayout | None = None
    execution: Execution = _ONE_THREAD
    true_masks: bool = False
    propagate: bool | None = None


class SceneRun(NamedTuple):
    """Truth and prediction of a scene, and seconds that each stage's first run took."""

    truth: ClipTruth
    prediction: ClipPrediction
    segment_seconds: float
    complete_seconds: float | None


def run_scene(seed: int, setting: Setting, samples: int = 1, complete: bool = False) -> SceneRun:
    """Runs a scene with `samples` seeds of noise; the first one goes on to RGB if `complete`."""
    model = _model(setting.bundle, setting.execution, is_guided((setting.guidance, setting.guidance)))
    scene = make_scene(seed, model.config.frames, model.config.size)
    options: dict[str, Any] = {
        "steps": setting.steps,
        "guidance": (setting.guidance, setting.guidance),
        "churn": Churn(setting.churn),
        "context": setting.context,
    }
    seen = model.segment(scene.modal, depth=scene.depth, seed=SEED, samples=samples, **options).samples
    whole = None
    if complete:
        masks = scene.amodal if setting.true_masks else seen[0].masks
        whole = model.complete(
            scene.frames, scene.modal, masks, seed=seen[0].noise, propagate=setting.propagate, **options
        )
    whole_rgb, frames = (scene.whole, scene.frames) if complete else (None, None)
    truth = ClipTruth(f"scene {seed}", scene.modal, scene.amodal, whole_rgb, frames, scene.boxes)
    prediction = ClipPrediction([s.masks for s in seen], whole.frames if whole else None)
    return SceneRun(truth, prediction, seen[0].seconds / samples, whole.seconds if whole else None)


def run_scenes(jobs: Sequence[tuple[Any, ...]], workers: int, what: str) -> list[SceneRun]:
    """Arguments of `run_scene`, as many at a time as there are workers, each a process; results in order.

    Raises:
        BackendError: a worker ended without an answer: killed for memory, or by a fault of a library.
        Exception: what `run_scene` raises; the scenes that are left are not run.
    """
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        done: Iterable[SceneRun] = (f.result() for f in [pool.submit(run_scene, *job) for job in jobs])
        return list(track(done, what, len(jobs), console=Console(stderr=True), transient=True))


@lru_cache(1)
def _model(bundle: str, execution: Execution, guided: bool) -> Model:
    """A model that a clip with or without guidance does not have to load anything for.

    On a CPU the U-Net is loaded for one CFG row or for two side by side, and again when that changes.
    """
    model = _loaded(bundle, execution)
    scene = make_scene(0, model.config.frames, model.config.size)
    scale = 1.5 if guided else 1.0
    model.segment(scene.modal, depth=scene.depth, steps=1, guidance=(scale, scale))
    return model


@lru_cache(4)
def _loaded(bundle: str, execution: Execution) -> Model:
    return load(bundle, **execution.options())
