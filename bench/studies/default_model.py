"""Quality of the default model, and what each shortcut costs: `python -m amodal.bench.studies.default_model`."""

from __future__ import annotations

import statistics
from typing import Any

import click
from rich.console import Console

from ..quality import Report, evaluate, render
from ..running.scene_runs import FIRST_SEED, SceneRun, Setting, run_scenes
from . import reported_errors


def figures(
    scenes: int, samples: int, workers: int, setting: Setting, complete: bool = True
) -> tuple[Report, list[SceneRun]]:
    """Evaluates unseen scenes in both modes; masks only, unless `complete`."""
    jobs = [(FIRST_SEED + index, setting, samples, complete) for index in range(scenes)]
    clips = run_scenes(jobs, workers, "scenes")
    return evaluate([(clip.truth, clip.prediction) for clip in clips], "both"), clips


def tradeoffs(scenes: int, workers: int, bundle: str, sequence: str | None) -> str:
    """Returns a Markdown table of quality and time, with one setting changed at a time.

    Every scene runs through all settings, so that noise of the machine falls on all alike; times are medians, relative
    to the default setting's.
    """
    steps = (4, 6, 10, 15, 25, 50)
    settings = {f"{n} steps": Setting(bundle, steps=n) for n in steps}
    settings |= {f"{n} steps, churn": Setting(bundle, steps=n, churn=float(n) / 2) for n in steps}
    settings |= {f"guidance {g}": Setting(bundle, guidance=g) for g in (1.0, 2.5)}
    settings |= {"context aligned": Setting(bundle, context="aligned")}
    if sequence is not None:
        settings |= {"context sequence": Setting(sequence)}
    jobs = [(FIRST_SEED + index, setting) for index in range(scenes) for setting in settings.values()]
    clips = run_scenes(jobs, workers, "runs")
    by_setting = {name: clips[place :: len(settings)] for place, name in enumerate(settings)}
    seconds = {name: statistics.median(clip.segment_seconds for clip in runs) for name, runs in by_setting.items()}
    reports = {
        name: evaluate([(clip.truth, clip.prediction) for clip in runs], "strict") for name, runs in by_setting.items()
    }
    lines = ["| setting | mIoU | mIoU_occ | flicker | time |", "|---|---:|---:|---:|---:|"]
    lines += [_line(name, next(iter(reports.values())), name, "") for name in ("modal", "convex")]
    lines += [_line(n, report, "Top-1", f"{seconds[n] / seconds['25 steps']:.2f}") for n, report in reports.items()]
    return "\n".join(lines)


def _line(name: str, report: Report, row: str, time: str) -> str:
    scores = report.row(row)
    assert scores.strict is not None
    values = scores.strict.miou, scores.strict.miou_occ, scores.flicker
    cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
    return f"| {name} | {' | '.join(cells)} | {time} |"


_COUNT = click.IntRange(min=1)
_WORKERS = click.option("--workers", type=_COUNT, default=2, show_default=True, help="Processes, one thread each.")
_BUNDLE = click.option("--bundle", default="default", show_default=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Quality of the default model over scenes that its training has not seen."""


@main.command("figures")
@click.option("-n", "--scenes", type=_COUNT, default=200, show_default=True)
@click.option("--samples", type=_COUNT, default=3, show_default=True, help="Seeds per scene, for Top-K.")
@_WORKERS
@_BUNDLE
@click.option("--steps", type=int, default=25, show_default=True)
@click.option("--guidance", type=float, default=1.5, show_default=True)
@click.option("--complete/--no-complete", default=True, show_default=True, help="RGB too, or masks only.")
@click.option("--true-masks", is_flag=True, help="RGB inside the scene's own masks instead of the predicted ones.")
@click.option(
    "--propagate/--no-propagate", default=None, help="RGB: copy what other frames show. Default: the bundle's."
)
@reported_errors()
def _figures(scenes: int, samples: int, workers: int, complete: bool, **setting: Any) -> None:
    """mIoU, mIoU_occ, AP, flicker and PSNR beside the baselines."""
    report, clips = figures(scenes, samples, workers, Setting(**setting), complete)
    Console(width=120).print(render(report))
    segment = statistics.median(clip.segment_seconds for clip in clips)
    line = f"median seconds per clip, one thread: segment {segment:.2f}"
    painted = [clip.complete_seconds for clip in clips if clip.complete_seconds is not None]
    click.echo(f"{line}, complete {statistics.median(painted):.2f}" if painted else line)


@main.command("tradeoffs")
@click.option("-n", "--scenes", type=_COUNT, default=40, show_default=True)
@_WORKERS
@_BUNDLE
@click.option("--sequence", metavar="BUNDLE", help="The same weights, exported for the context layout `sequence`.")
@reported_errors()
def _tradeoffs(scenes: int, workers: int, bundle: str, sequence: str | None) -> None:
    """Quality and time over steps, churn, guidance and context layouts, as a Markdown table."""
    click.echo(tradeoffs(scenes, workers, bundle, sequence))


if __name__ == "__main__":
    main()
