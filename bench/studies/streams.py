"""What streams lose against files: `python -m amodal.bench.studies.streams`.

Long scenes that the model has not seen are given frame by frame to streams of several settings, and as files to the
ways of windows. All frames count, those at the beginning too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from amodal.runtime.clips.gate import Gate
from amodal.runtime.clips.windows import WindowStrategy
from amodal.runtime.scenes import Scene

from ..families.diffusion_vas import sampler_keywords
from ..quality.measures import hidden_iou, iou
from ..running.long_scenes import long_scene
from ..running.process import new_processes
from ..running.scene_runs import SEED, Setting, model_of
from . import reported_errors

Floats = NDArray[np.float64]
FILES = ("chunks", "shifted")
STREAMS = ("1/0", "2/0", "2/1", "2/2", "4/0", "2/2/dilated")
_RATE = 8.0  # frames a second


class Scores(NamedTuple):
    """IoU of the whole and of the hidden part in each frame, [N], the latter NaN where nothing is hidden."""

    iou: Floats
    hidden: Floats


def run_scene(index: int, streams: Sequence[str], gate: bool, setting: Setting) -> dict[str, Scores]:
    """Runs a scene in all ways; a stream is named by `every/lookahead`, and `/dilated` where its windows are."""
    model = model_of(setting)
    _, scene = long_scene(index, model.config.size)
    options: dict[str, Any] = sampler_keywords(setting.steps, setting.guidance, setting.churn)
    found = {}
    for way in FILES:
        windows = cast("WindowStrategy", way)
        found[way] = model.segment(scene.modal, depth=scene.depth, seed=SEED, windows=windows, **options).masks
    for way in streams:
        every, lookahead, *cut = way.split("/")
        ours: dict[str, Any] = {
            "every": int(every),
            "lookahead": int(lookahead),
            "windows": cut[0] if cut else "newest",
        }
        chosen = Gate() if gate else None
        with model.stream(**ours, seed=SEED, forget=1e6, gate=chosen, **options) as stream:
            found[way] = np.stack([result.objects[1].mask for result in stream.over(_frames(scene))])
    return {way: Scores(iou(masks, scene.amodal), _hidden(masks, scene)) for way, masks in found.items()}


def _frames(scene: Scene) -> list[tuple[Any, ...]]:
    pairs = zip(scene.modal, scene.depth, strict=True)
    # An object is there from the first frame on in which it is seen, and has a result from then on.
    return [(None, {1: modal}, depth, number / _RATE) for number, (modal, depth) in enumerate(pairs)]


def _hidden(masks: NDArray[np.bool_], scene: Scene) -> Floats:
    return hidden_iou(masks, scene.amodal, scene.modal)


def tabulate(way: str, runs: Sequence[dict[str, Scores]]) -> str:
    """Returns a row of the table."""

    def mean(way: str, run: dict[str, Scores]) -> float:
        return 100 * float(np.nanmean(run[way].hidden))

    miou = float(np.mean([100 * run[way].iou.mean() for run in runs]))
    occluded = float(np.mean([mean(way, run) for run in runs]))
    cells = []
    for other in FILES:
        gains = np.array([mean(way, run) - mean(other, run) for run in runs])
        error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
        cells.append("" if way == other else f"{gains.mean():+.1f} ± {error:.1f}")
    return f"| {way} | {miou:.1f} | {occluded:.1f} | {cells[0]} | {cells[1]} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=2), default=40, show_default=True)
@click.option(
    "--stream", "streams", multiple=True, default=STREAMS, show_default=True, help="every/lookahead[/dilated]"
)
@click.option(
    "--gate/--no-gate", default=False, show_default=True, help="Whether streams leave out what is not hidden."
)
@click.option("--steps", type=int, default=6, show_default=True)
@click.option("--bundle", default="default", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="One thread each.")
@reported_errors()
def main(scenes: int, streams: tuple[str, ...], gate: bool, workers: int, **setting: Any) -> None:
    """mIoU and mIoU_occ of each way, and the differences of mIoU_occ from files, as a Markdown table."""
    chosen = [index for index in range(scenes) if _is_whole(index)]
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        jobs = [pool.submit(run_scene, index, streams, gate, Setting(**setting)) for index in chosen]
        runs = [job.result() for job in track(jobs, "scenes", console=Console(stderr=True), transient=True)]
    click.echo(f"{len(runs)} of {scenes} scenes: in the others the object is not seen in the first frame.\n")
    click.echo("| way | mIoU | mIoU_occ | against chunks | against shifted |\n|---|---:|---:|---:|---:|")
    for way in (*FILES, *streams):
        click.echo(tabulate(way, runs))


def _is_whole(index: int) -> bool:
    """Returns whether an object is seen in the first frame, so that a stream has a result in all."""
    _, scene = long_scene(index)
    return bool(scene.modal[0].any() and (scene.amodal & ~scene.modal).any())


if __name__ == "__main__":
    main()
