"""What frames of the whole clip know of hidden pixels: `python -m amodal.bench.studies.propagation`.

Scenes of 24 to 40 frames that the model has not seen. No network is run: hidden pixels are copied with true whole
masks, and those that no frame shows have the mean colour of the visible part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from amodal.runtime.pictures.propagation import Propagated, SourceFrames, propagate
from amodal.runtime.scenes import Scene

from ..quality.measures import hidden_psnr, mean_colour
from ..running.long_scenes import COURSE, long_scene
from ..running.process import new_processes
from . import reported_errors


class Known(NamedTuple):
    """Of a scene in one way: share of hidden pixels that are copied, PSNR of all of them in dB, processor seconds."""

    kind: str
    share: float
    psnr: float
    seconds: float


def in_windows(scene: Scene) -> Propagated:
    """Copies within windows of as many frames as a bundle has."""
    parts = [slice(start, start + COURSE) for start in range(0, len(scene.modal), COURSE)]
    found = [propagate(scene.frames[part], scene.modal[part], scene.amodal[part]) for part in parts]
    return Propagated(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def over_the_clip(scene: Scene) -> Propagated:
    """Copies as `complete` does for a long clip."""
    sources = SourceFrames(len(scene.modal))
    sources.add(0, scene.frames, scene.modal, scene.amodal)
    return sources.fill(0, scene.frames, scene.modal, scene.amodal)


WAYS: dict[str, Callable[[Scene], Propagated]] = {
    f"windows of {COURSE} frames": in_windows,
    "the whole clip": over_the_clip,
    "the whole clip, all frames": lambda scene: propagate(scene.frames, scene.modal, scene.amodal),
}


def run_scene(index: int) -> dict[str, Known] | None:
    """Runs a scene in all ways; None if nothing is hidden in it."""
    kind, scene = long_scene(index)
    hidden = scene.amodal & ~scene.modal
    if not hidden.any():
        return None
    found = {}
    for way, run in WAYS.items():
        begin = time.process_time()
        rgb, known = run(scene)
        seconds = time.process_time() - begin
        drawn = np.where(known[..., None], rgb, mean_colour(scene.frames, scene.modal))
        psnr = float(np.nanmean(hidden_psnr(drawn, scene.whole, hidden)))
        found[way] = Known(kind, float(known[hidden].mean()), psnr, seconds)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="One thread each.")
@reported_errors()
def main(scenes: int, workers: int) -> None:
    """Known share, PSNR and seconds of each way and kind of scene, as a Markdown table."""
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        jobs = [pool.submit(run_scene, index) for index in range(scenes)]
        done = [job.result() for job in track(jobs, "scenes", console=Console(stderr=True), transient=True)]
    runs = [run for run in done if run is not None]
    click.echo(
        "| hidden pixels are copied from | kind | scenes | known | PSNR | s a clip |\n|---|---|---:|---:|---:|---:|"
    )
    for way in WAYS:
        for kind in ("paced", "slow"):
            of_it = [run[way] for run in runs if run[way].kind == kind]
            if of_it:
                share, psnr, seconds = (float(np.mean([getattr(k, n) for k in of_it])) for n in Known._fields[1:])
                click.echo(f"| {way} | {kind} | {len(of_it)} | {share:.2f} | {psnr:.1f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
