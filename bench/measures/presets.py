"""Presets, settings of the sampler with a name, and what each gives and takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.model import load

from ..quality import Report, evaluate
from ..running.clips import Execution
from ..running.machine import executed_of, work_of
from ..running.scene_runs import FIRST_SEED, SEED, SceneRun, Setting, run_scenes
from ..schema import Preset, Quality

PRESETS: dict[str, Setting] = {
    "draft": Setting(steps=4, guidance=1.0),
    "fast": Setting(steps=6),
    "fast, churned": Setting(steps=6, churn=3.0),
    "balanced": Setting(steps=10),
    "reference": Setting(steps=25),
    "reference, unguided": Setting(steps=25, guidance=1.0),
    "reference, churned": Setting(steps=25, churn=12.5),
    "thorough": Setting(steps=50),
}
"""`reference` is what the authors' demo runs; each of the others changes what costs time, or churn."""


def measure_quality(
    bundle: str | Path,
    execution: Execution,
    *,
    scenes: int = 10,
    workers: int = 1,
    names: tuple[str, ...] = tuple(PRESETS),
) -> Quality:
    """Quality of the first stage's masks (strict mode) over unseen scenes, and its time, preset by preset.

    Every scene runs through all presets before the next one, so that the machine's noise falls on all alike.

    Args:
        workers: processes; each takes the whole of a GPU's engines, and on a CPU its threads.

    Raises:
        InputError: a preset that does not exist, fewer than one scene or worker, or a bundle without `segment`.
        AmodalError: the bundle cannot be run like this.
    """
    unknown = [name for name in names if name not in PRESETS]
    if unknown or not names:
        raise InputError(f"preset {', '.join(unknown) or 'none'} is unknown; expected some of: {'; '.join(PRESETS)}.")
    if scenes < 1 or workers < 1:
        raise InputError(f"{scenes} scenes by {workers} workers: expected 1 or more of both (`scenes`, `workers`).")
    opened = Bundle(bundle)
    if "segment" not in opened.manifest.tasks:
        raise InputError(
            f"bundle {bundle} has no segment stage, whose masks are measured; export it again with "
            "`amodal export --segment CHECKPOINT`."
        )
    settings = {name: replace(PRESETS[name], bundle=str(bundle), execution=execution) for name in names}
    jobs = [(FIRST_SEED + index, setting) for index in range(scenes) for setting in settings.values()]
    runs = run_scenes(jobs, workers, "runs")
    with load(bundle, **execution.options()) as model:
        executed = executed_of(model)
    presets = [_preset(name, settings[name], runs[place :: len(names)], opened) for place, name in enumerate(names)]
    baselines = _baselines(runs[:: len(names)])
    return Quality(executed=executed, scenes=scenes, presets=presets, baselines=baselines, workers=workers)


def _preset(name: str, setting: Setting, runs: list[SceneRun], bundle: Bundle) -> Preset:
    row = _report(runs).row("Top-1")
    assert row.strict is not None
    work = work_of(
        bundle, "segment", steps=setting.steps, guidance=setting.guidance, churn=setting.churn, seed=SEED
    ).model_copy(update={"depth": False})
    return Preset(
        name=name,
        work=work,
        miou=row.strict.miou,
        miou_occ=row.strict.miou_occ,
        flicker=row.flicker,
        seconds=[run.segment_seconds for run in runs],
    )


def _baselines(runs: list[SceneRun]) -> dict[str, float]:
    found = {}
    for name in ("modal", "convex"):
        scores = _report(runs).row(name).strict
        assert scores is not None
        found[f"{name} mIoU"] = scores.miou
        if scores.miou_occ is not None:
            found[f"{name} mIoU_occ"] = scores.miou_occ
    return found


def _report(runs: list[SceneRun]) -> Report:
    return evaluate([(run.truth, run.prediction) for run in runs], "strict")
