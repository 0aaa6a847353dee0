"""What a crop around a small object is worth: `python -m amodal.bench.studies.small_objects`.

Scenes that the model has not seen are drawn in a wider view, in which the object is small, and run whole and in windows
around the object. Masks are compared with the truth at the frame's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from amodal.runtime.pictures.cropping import Crop
from amodal.runtime.scenes import make_scene

from ..families.diffusion_vas import sampler_keywords
from ..quality.measures import hidden_iou, iou
from ..running.process import new_processes
from ..running.scene_runs import FIRST_SEED, SEED, Setting, model_of
from ..statistics import Difference, paired_difference
from . import reported_errors

Size = tuple[int, int]
Floats = NDArray[np.float64]

WHOLE = "off"


class Scores(NamedTuple):
    """IoU of the whole and of the hidden part in each frame, [T], the latter NaN where nothing is hidden."""

    iou: Floats
    hidden: Floats


class Row(NamedTuple):
    """A way of running all scenes: means over all frames in percent, and the difference of mIoU_occ from `off`."""

    zoom: float
    way: str
    miou: float
    miou_occ: float
    difference: Difference


def run_scene(seed: int, zoom: float, size: Size, setting: Setting, scales: Sequence[float]) -> dict[str, Scores]:
    """Runs a scene whole and in a window of each scale; returns the scores by way."""
    model = model_of(setting)
    scene = make_scene(seed, model.config.frames, size, zoom)
    options: dict[str, Any] = sampler_keywords(setting.steps, setting.guidance, setting.churn)
    ways = {WHOLE: Crop(size, 0, 0, *size), **{f"{scale:g}": Crop.around(scene.modal, scale) for scale in scales}}

    def scores(crop: Crop) -> Scores:
        seen = model.segment(crop.cut(scene.modal), depth=crop.cut(scene.depth), seed=SEED, **options)
        masks = crop.paste(seen.masks_full, False) | scene.modal
        return Scores(iou(masks, scene.amodal), hidden_iou(masks, scene.amodal, scene.modal))

    return {way: scores(crop) for way, crop in ways.items()}


def tabulate(zoom: float, runs: Sequence[dict[str, Scores]]) -> list[Row]:
    """Returns a row per way, of the runs of all scenes at one zoom."""

    def mean(way: str, name: str) -> float:
        return 100 * float(np.nanmean([getattr(run[way], name) for run in runs]))

    def hidden(way: str) -> list[Floats]:
        return [100 * run[way].hidden for run in runs]

    return [
        Row(zoom, way, mean(way, "iou"), mean(way, "hidden"), paired_difference(hidden(WHOLE), hidden(way)))
        for way in runs[0]
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--zoom", "zooms", type=float, multiple=True, default=(2.0, 4.0, 8.0), show_default=True)
@click.option("--crop", "scales", type=float, multiple=True, default=(1.5, 2.0, 3.0), show_default=True)
@click.option("--height", type=click.IntRange(min=16), default=256, show_default=True, help="Of the frames.")
@click.option("--width", type=click.IntRange(min=16), default=512, show_default=True)
@click.option("--steps", type=int, default=25, show_default=True)
@click.option("--bundle", default="default", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="One thread each.")
@reported_errors()
def main(
    scenes: int,
    zooms: tuple[float, ...],
    scales: tuple[float, ...],
    height: int,
    width: int,
    workers: int,
    **setting: Any,
) -> None:
    """mIoU and mIoU_occ at the frame's size, whole and cropped, as a Markdown table."""
    size = (height, width)
    click.echo("| zoom | crop | mIoU | mIoU_occ | difference (99 %) |\n|---:|---|---:|---:|---:|")
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        for zoom in zooms:
            jobs = [
                pool.submit(run_scene, FIRST_SEED + index, zoom, size, Setting(**setting), scales)
                for index in range(scenes)
            ]
            console = Console(stderr=True)
            runs = [job.result() for job in track(jobs, f"zoom {zoom:g}", console=console, transient=True)]
            for row in tabulate(zoom, runs):
                low, high = row.difference.low, row.difference.high
                gained = "" if row.way == WHOLE else f"{row.difference.value:+.1f} ({low:+.1f} to {high:+.1f})"
                click.echo(f"| {row.zoom:g} | {row.way} | {row.miou:.1f} | {row.miou_occ:.1f} | {gained} |")


if __name__ == "__main__":
    main()
