"""Presets, named settings of the sampler, and the quality and time of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load

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
"""`reference` has the settings of the authors' demo; each of the others changes those that cost time, or churn."""


def measure_quality(
    bundle: str | Path,
    execution: Execution,
    *,
    scenes: int = 10,
    workers: int = 1,
    names: tuple[str, ...] = tuple(PRESETS),
) -> Quality:
    """Measures time and quality of the masks of stage `segment` (strict mode) over unseen scenes, by preset.

    Each scene runs through all presets before the next scene, so that disturbances affect all presets alike.

    Args:
        workers: processes; each takes the memory of all engines, and on a CPU its own threads.

    Raises:
        InputError: an unknown preset, fewer than one scene or worker, or a bundle without stage `segment`.
        AmodalError: the bundle cannot be run with this `execution`.
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
    baselines = _baselines(_report(runs[:: len(names)]))
    return Quality(executed=executed, scenes=scenes, presets=presets, baselines=baselines, workers=workers)


def _preset(name: str, setting: Setting, runs: list[SceneRun], bundle: Bundle) -> Preset:
    row = _report(runs).row("Top-1")
    assert row.strict is not None
    sampler = {key: getattr(setting, key) for key in ("steps", "guidance", "churn")}
    return Preset(
        name=name,
        work=work_of(bundle, "segment", seed=SEED, **sampler).model_copy(update={"depth": False}),
        miou=row.strict.miou,
        miou_occ=row.strict.miou_occ,
        flicker=row.flicker,
        seconds=[run.segment_seconds for run in runs],
    )


def _baselines(report: Report) -> dict[str, float]:
    found = {}
    for name in ("modal", "convex"):
        scores = report.row(name).strict
        assert scores is not None
        found[f"{name} mIoU"] = scores.miou
        if scores.miou_occ is not None:
            found[f"{name} mIoU_occ"] = scores.miou_occ
    return found


def _report(runs: list[SceneRun]) -> Report:
    return evaluate([(run.truth, run.prediction) for run in runs], "strict")
