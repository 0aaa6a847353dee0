"""Scenes with a known truth, run through a bundle in worker processes; the basis of all measures of quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from amodal.runtime.families.diffusion_vas.config import ContextLayout
from amodal.runtime.loading import load
from amodal.runtime.model import Model
from amodal.runtime.sampling.denoiser import is_guided
from amodal.runtime.scenes import make_scene

from ..families.diffusion_vas import sampler_keywords
from ..quality import ClipPrediction, ClipTruth
from .clips import Execution
from .process import new_processes

FIRST_SEED = 500_000  # of scenes not seen in training: below the training seeds, above those of demos
SEED = 23
_ONE_THREAD = Execution(threads=1)


@dataclass(frozen=True)
class Setting:
    """Settings of a clip; see `amodal.runtime.families.diffusion_vas.settings.Settings`.

    Attributes:
        true_masks: whether stage `complete` takes the scene's true amodal masks instead of the predicted ones.
        propagate: whether it copies hidden pixels from other frames; None for the bundle's default.
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
    """Truth and prediction of a scene, and the seconds of the first run of each stage."""

    truth: ClipTruth
    prediction: ClipPrediction
    segment_seconds: float
    complete_seconds: float | None


def run_scene(seed: int, setting: Setting, samples: int = 1, complete: bool = False) -> SceneRun:
    """Runs a scene with `samples` seeds of noise; with `complete`, the first one through both stages."""
    model = model_of(setting)
    scene = make_scene(seed, model.config.frames, model.config.size)
    options: dict[str, Any] = sampler_keywords(setting.steps, setting.guidance, setting.churn)
    options["context"] = setting.context
    found = model.segment(scene.modal, depth=scene.depth, seed=SEED, samples=samples, **options).samples
    completed = None
    if complete:
        masks = scene.amodal if setting.true_masks else found[0].masks
        completed = model.complete(
            scene.frames, scene.modal, masks, seed=found[0].noise, propagate=setting.propagate, **options
        )
    whole, frames = (scene.whole, scene.frames) if complete else (None, None)
    truth = ClipTruth(f"scene {seed}", scene.modal, scene.amodal, whole, frames, scene.boxes)
    prediction = ClipPrediction([each.masks for each in found], completed.frames if completed else None)
    return SceneRun(truth, prediction, found[0].seconds / samples, completed.seconds if completed else None)


def run_scenes(jobs: Sequence[tuple[Any, ...]], workers: int, what: str) -> list[SceneRun]:
    """Calls `run_scene` with each of the argument tuples, in `workers` processes; returns the results in order.

    Raises:
        BackendError: a worker was killed for memory, or crashed in a library.
        Exception: any exception of `run_scene`; the remaining scenes are not run.
    """
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        futures = [pool.submit(run_scene, *job) for job in jobs]
        console = Console(stderr=True)
        return list(track((f.result() for f in futures), what, len(jobs), console=console, transient=True))


def model_of(setting: Setting) -> Model:
    """Returns this process's model for a setting, with everything loaded that a clip needs."""
    return _model(setting.bundle, setting.execution, is_guided((setting.guidance, setting.guidance)))


@lru_cache(1)
def _model(bundle: str, execution: Execution, guided: bool) -> Model:
    """A model with everything loaded that a clip with or without guidance needs.

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
