"""What the gate leaves out, and whether it may: `python -m amodal.bench.studies.gate`.

Everything that moves in scenes which the model has not seen is an object. No network runs: where the gate says that
none is needed, what is seen of an object is compared with the whole of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from amodal.runtime.clips.depth_range import Extremes
from amodal.runtime.clips.gate import Gate, needs_network
from amodal.runtime.scenes import Things, make_things

from ..quality.measures import iou
from ..running.long_scenes import COURSE
from ..running.scene_runs import FIRST_SEED
from . import reported_errors

Floats = NDArray[np.float64]
NEEDED = 0.99
"""An object needs the network if in some frame less than this share of it is seen: more is a matter of edges."""


class Judged(NamedTuple):
    """An object by the gate: IoU of its visible part and the whole in each frame, and which frames were skipped."""

    ious: Floats
    skipped: NDArray[np.bool_]


class Row(NamedTuple):
    """Of all objects, in percent but for IoUs.

    Attributes:
        needless: objects of which everything is seen, or that are nowhere to be seen.
        objects: those that no frame of was run.
        iou, worst: of their frames.
        wrong: objects that were skipped and needed the network.
        frames: of all objects that were skipped.
        frames_iou: of those.
    """

    needless: float
    objects: float
    iou: float
    worst: float
    wrong: float
    frames: float
    frames_iou: float


def noisy(depth: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Returns depth as a network might give it: blurred, with noise of a hundredth of the range."""
    rng = np.random.default_rng(seed)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in depth])
    noise = np.stack([cv2.GaussianBlur(rng.normal(0, 1, frame.shape), (0, 0), 2.0) for frame in depth])
    return np.asarray(blurred + 0.01 * noise / noise.std(), np.float32)


def judge_scene(things: Things, gate: Gate, depth: NDArray[np.float32]) -> list[Judged]:
    """Judges the objects of a scene that are seen in some frame."""
    extremes = Extremes()
    extremes.add(depth)
    near = extremes.range().normalise(depth)
    pairs = zip(things.modal, things.amodal, strict=True)
    return [
        Judged(iou(modal, amodal), ~needs_network(gate.judge(modal, near))) for modal, amodal in pairs if modal.any()
    ]


def tabulate(objects: Sequence[Judged]) -> Row:
    """Returns the row of a setting."""
    needs = np.array([(found.ious < NEEDED).any() for found in objects])
    whole = np.array([found.skipped.all() for found in objects])
    skipped = np.concatenate([found.ious[found.skipped] for found in objects])
    means = [float(found.ious.mean()) for found, one in zip(objects, whole, strict=True) if one] or [np.nan]
    frames = np.concatenate([found.skipped for found in objects])
    needless, left_out, wrong, share = (100 * float(x.mean()) for x in (~needs, whole, needs & whole, frames))
    return Row(needless, left_out, float(np.mean(means)), min(means), wrong, share, float(skipped.mean()))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--frames", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--tolerance", "tolerances", type=float, multiple=True, default=(0.0, 0.02, 0.05), show_default=True)
@reported_errors()
def main(scenes: int, frames: int, tolerances: tuple[float, ...]) -> None:
    """Objects and frames that are skipped, and their IoU, as a Markdown table."""
    made = [make_things(FIRST_SEED + index, frames, pace=None if index % 2 else COURSE) for index in range(scenes)]
    depths = {"true": [t.depth for t in made], "noisy": [noisy(t.depth, i) for i, t in enumerate(made)]}
    count = sum(int(things.modal.any(axis=(1, 2, 3)).sum()) for things in made)
    click.echo(f"{count} objects of {scenes} scenes.\n")
    click.echo("| depth | tolerance | need nothing | skipped | IoU (worst) | needed it | frames skipped | their IoU |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, maps in depths.items():
        for tolerance in tolerances:
            pairs = zip(made, maps, strict=True)
            row = tabulate([found for t, depth in pairs for found in judge_scene(t, Gate(tolerance), depth)])
            click.echo(
                f"| {name} | {tolerance:g} | {row.needless:.1f} % | {row.objects:.1f} % | {row.iou:.4f} "
                f"({row.worst:.4f}) | {row.wrong:.1f} % | {row.frames:.1f} % | {row.frames_iou:.4f} |"
            )


if __name__ == "__main__":
    main()
