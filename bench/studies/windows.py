"""What the ways to cut a long clip into windows are worth: `python -m amodal.bench.studies.windows`.

Scenes of 24 to 40 frames that the model has not seen are run in all ways, one after the other, and compared with the
truth. A mask's change from one frame to the next that the truth's does not explain (`flicker`) is averaged at the
borders of independent windows and elsewhere: a seam is a difference of the two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track

from amodal.runtime.clips.source import ArraySource
from amodal.runtime.clips.windows import WindowStrategy, windows_at
from amodal.runtime.families.diffusion_vas.block_settings import BlockRequest
from amodal.runtime.families.diffusion_vas.blocks import segment_blocks
from amodal.runtime.families.diffusion_vas.settings import Settings

from ..quality.measures import flicker, hidden_iou, iou
from ..running.long_scenes import long_scene
from ..running.process import new_processes
from ..running.scene_runs import SEED, Setting, model_of
from . import reported_errors

Floats = NDArray[np.float64]
WAYS = ("chunks", "shifted", "blended", "joint", "dilated")


class Scores(BaseModel):
    """Of a scene in one way: percent, processor seconds, and calls of the U-Net relative to chunks."""

    kind: str
    miou: float
    miou_occ: float | None
    seam: float | None
    inside: float | None
    seconds: float
    calls: float


class Record(BaseModel):
    """All scores so far, by "steps way index", so that a run can go on."""

    scores: dict[str, Scores] = {}


class Row(NamedTuple):
    """Means over scenes; `gain` is the difference of mIoU_occ from chunks, with its standard error."""

    miou: float
    miou_occ: float
    gain: float
    error: float
    seam: float
    inside: float
    calls: float
    time: float


def run_scene(index: int, ways: Sequence[str], setting: Setting) -> dict[str, Scores]:
    """Runs a scene in several ways, on one thread."""
    model = model_of(setting)
    kind, scene = long_scene(index, model.config.size)
    frames, count = model.config.frames, len(scene.modal)
    settings = Settings(steps=setting.steps, guidance=(setting.guidance, setting.guidance))
    source = ArraySource({1: scene.modal}, scene.frames, scene.depth)
    borders = np.zeros(count - 1, bool)
    borders[frames - 1 :: frames] = True
    found = {}
    turn = index % len(ways)  # none is always the first
    for way in [*ways[turn:], *ways[:turn]]:
        begin = time.process_time()
        request = BlockRequest(settings, SEED, cast("WindowStrategy", way))
        blocks = list(segment_blocks(model.session, source, request))
        seconds = time.process_time() - begin
        masks = np.concatenate([block.masks[1] for block in blocks])
        changes = 100 * flicker(masks, scene.amodal)
        occluded = hidden_iou(masks, scene.amodal, scene.modal)
        found[way] = Scores(
            kind=kind,
            miou=100 * float(np.nanmean(iou(masks, scene.amodal))),
            miou_occ=_mean(100 * occluded),
            seam=_mean(changes[borders]),
            inside=_mean(changes[~borders]),
            seconds=seconds,
            calls=_calls(way, count, frames, setting.steps),
        )
    return found


def _mean(values: Floats) -> float | None:
    """Returns the mean without NaN; None if there is nothing else."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _calls(way: str, count: int, frames: int, steps: int) -> float:
    if way == "blended":
        return (-(-(count - frames // 2) // (frames - frames // 2))) / -(-count // frames)
    made = sum(len(windows_at(cast("WindowStrategy", way), count, frames, step, steps)) for step in range(steps))
    return made / steps / -(-count // frames)


def tabulate(scores: Sequence[Scores], chunks: Sequence[Scores]) -> Row:
    """Returns the row of one way, of the same scenes as `chunks`."""

    def mean(name: str) -> float:
        return float(np.mean([value for s in scores if (value := getattr(s, name)) is not None]))

    pairs = [(s.miou_occ, c.miou_occ) for s, c in zip(scores, chunks, strict=True)]
    gains = np.array([one - other for one, other in pairs if one is not None and other is not None])
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")
    ratio = float(np.median([s.seconds / c.seconds for s, c in zip(scores, chunks, strict=True)]))
    return Row(
        mean("miou"),
        mean("miou_occ"),
        float(gains.mean()),
        error,
        mean("seam"),
        mean("inside"),
        mean("calls"),
        ratio,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=2), default=40, show_default=True)
@click.option("--windows", "ways", multiple=True, default=WAYS, show_default=True, help="`chunks` is always run.")
@click.option("--steps", type=int, default=6, show_default=True)
@click.option("--bundle", default="default", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="One thread each.")
@click.option("--record", type=click.Path(path_type=Path), help="A JSON of finished scenes, to go on with later.")
@reported_errors()
def main(scenes: int, ways: tuple[str, ...], workers: int, record: Path | None, **setting: Any) -> None:
    """mIoU, mIoU_occ, seams and time of each way, as a Markdown table."""
    ways = tuple(dict.fromkeys(["chunks", *ways]))
    kept = Record.model_validate_json(record.read_text()) if record and record.exists() else Record()
    steps = setting["steps"]
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        jobs = {}
        for index in range(scenes):
            if missing := [way for way in ways if f"{steps} {way} {index}" not in kept.scores]:
                jobs[index] = pool.submit(run_scene, index, missing, Setting(**setting))
        for index, job in track(jobs.items(), "scenes", console=Console(stderr=True), transient=True):
            kept.scores.update({f"{steps} {way} {index}": scores for way, scores in job.result().items()})
            if record:
                record.write_text(kept.model_dump_json())
    click.echo("| windows | mIoU | mIoU_occ | against chunks | seam / inside | U-Net calls | time |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    by_way = {way: [kept.scores[f"{steps} {way} {index}"] for index in range(scenes)] for way in ways}
    for way, scores in by_way.items():
        row = tabulate(scores, by_way["chunks"])
        gain = "" if way == "chunks" else f"{row.gain:+.1f} ± {row.error:.1f}"
        click.echo(
            f"| {way} | {row.miou:.1f} | {row.miou_occ:.1f} | {gain} | {row.seam:.1f} / {row.inside:.1f} | "
            f"{row.calls:.2f} | {row.time:.2f} |"
        )


if __name__ == "__main__":
    main()
