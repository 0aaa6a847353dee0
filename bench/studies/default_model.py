"""How good the default model is, and what every shortcut costs: `python -m amodal.bench.studies.default_model`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from amodal.runtime.errors import AmodalError

from ..quality import Report, evaluate, render
from ..running.scene_runs import FIRST_SEED, SceneRun, Setting, run_scenes


def figures(
    scenes: int, samples: int, workers: int, setting: Setting, complete: bool = True
) -> tuple[Report, list[SceneRun]]:
    """Quality over unseen scenes, in both modes; of the masks alone unless `complete`."""
    jobs = [(FIRST_SEED + index, setting, samples, complete) for index in range(scenes)]
    clips = run_scenes(jobs, workers, "scenes")
    return evaluate([(clip.truth, clip.prediction) for clip in clips], "both"), clips


def tradeoffs(scenes: int, workers: int, bundle: str, sequence: str | None) -> str:
    """A Markdown table of quality and time, one setting changed at a time.

    Every scene runs through all settings, so that noise of the machine falls on all alike; times are medians, relative
    to the default setting's.
    """
    settings = {f"{n} steps": Setting(bundle, steps=n) for n in (4, 6, 10, 15, 25, 50)}
    settings |= {f"{n} steps, churn": Setting(bundle, steps=n, churn=float(n) / 2) for n in (4, 6, 10, 15, 25, 50)}
    settings |= {f"guidance {g}": Setting(bundle, guidance=g) for g in (1.0, 2.5)}
    settings |= {"context aligned": Setting(bundle, context="aligned")}
    if sequence is not None:
        settings |= {"context sequence": Setting(sequence)}
    jobs = [(FIRST_SEED + index, setting) for index in range(scenes) for setting in settings.values()]
    clips = run_scenes(jobs, workers, "runs")
    count = len(settings)
    base = statistics.median(c.segment_seconds for c in clips[list(settings).index("25 steps") :: count])
    lines = ["| setting | mIoU | mIoU_occ | flicker | time |", "|---|---:|---:|---:|---:|"]
    first = evaluate([(c.truth, c.prediction) for c in clips[::count]], "strict")
    lines += [_line(name, first, name, "") for name in ("modal", "convex")]
    for place, name in enumerate(settings):
        mine = clips[place::count]
        report = evaluate([(c.truth, c.prediction) for c in mine], "strict")
        ratio = statistics.median(c.segment_seconds for c in mine) / base
        lines.append(_line(name, report, "Top-1", f"{ratio:.2f}"))
    return "\n".join(lines)


def _line(name: str, report: Report, row: str, time: str) -> str:
    scores = report.row(row)
    assert scores.strict is not None
    miou, occ = scores.strict.miou, scores.strict.miou_occ
    cells = ["-" if value is None else f"{100 * value:.1f}" for value in (miou, occ, scores.flicker)]
    return f"| {name} | {' | '.join(cells)} | {time} |"


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except AmodalError as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Quality of the default model over scenes that its training has not seen."""


@main.command("figures")
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--samples", type=click.IntRange(min=1), default=3, show_default=True, help="Seeds per scene, for Top-K.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes, one thread each.")
@click.option("--bundle", default="default", show_default=True)
@click.option("--steps", type=int, default=25, show_default=True)
@click.option("--guidance", type=float, default=1.5, show_default=True)
@click.option("--complete/--no-complete", default=True, show_default=True, help="RGB too, or masks alone.")
@click.option("--true-masks", is_flag=True, help="RGB inside the scene's own masks instead of the predicted ones.")
@click.option(
    "--propagate/--no-propagate", default=None, help="RGB: carry over what other frames show. Default: the bundle's."
)
def _figures(
    scenes: int,
    samples: int,
    workers: int,
    bundle: str,
    steps: int,
    guidance: float,
    complete: bool,
    true_masks: bool,
    propagate: bool | None,
) -> None:
    """mIoU, mIoU_occ, AP, flicker and PSNR beside the baselines."""
    with _one_sentence():
        setting = Setting(bundle, steps, guidance, true_masks=true_masks, propagate=propagate)
        report, clips = figures(scenes, samples, workers, setting, complete)
    Console(width=120).print(render(report))
    segment = statistics.median(clip.segment_seconds for clip in clips)
    line = f"median seconds per clip, one thread: segment {segment:.2f}"
    painted = [clip.complete_seconds for clip in clips if clip.complete_seconds is not None]
    click.echo(f"{line}, complete {statistics.median(painted):.2f}" if painted else line)


@main.command("tradeoffs")
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes, one thread each.")
@click.option("--bundle", default="default", show_default=True)
@click.option("--sequence", metavar="BUNDLE", help="The same weights, exported for the context layout `sequence`.")
def _tradeoffs(scenes: int, workers: int, bundle: str, sequence: str | None) -> None:
    """Quality and time over steps, churn, guidance and context layouts, as a Markdown table."""
    with _one_sentence():
        click.echo(tradeoffs(scenes, workers, bundle, sequence))


if __name__ == "__main__":
    main()
