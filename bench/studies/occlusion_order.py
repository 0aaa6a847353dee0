"""How often depth along boundaries orders objects rightly: `python -m amodal.bench.studies.occlusion_order`.

All things of unseen scenes that show some pixels are ordered, from their exact depth and from depth that is blurred and
noisy as a network's or a camera's, and compared with the order in which they were painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from amodal.runtime.families.paco.order import STRATEGIES, OcclusionOrder, occlusion_order
from amodal.runtime.scenes import make_things

from ..running.scene_runs import FIRST_SEED
from . import reported_errors

LEAST = 12
"""Visible pixels from which a thing counts as an object."""


class Scored(NamedTuple):
    """What became of the pairs of a scene, and how many passes each strategy takes.

    Attributes:
        right, wrong, missed: pairs in which one visible object hides a part of the other. Missed ones have no relation,
            mostly because a third object lies where they would touch.
        layered: of these pairs, how many have the front object in an earlier layer, be it through others.
        objects: objects in the scene.
        passes: of `STRATEGIES`, in their order.
    """

    right: int
    wrong: int
    missed: int
    layered: int
    objects: int
    passes: tuple[int, ...]


class Row(NamedTuple):
    """Sums over scenes; accuracies of relations and layers in percent of all pairs, NaN without any; mean passes."""

    pairs: int
    wrong: int
    missed: int
    accuracy: float
    layer_accuracy: float
    passes: tuple[float, ...]


def score(order: OcclusionOrder, modal: NDArray[np.bool_], amodal: NDArray[np.bool_]) -> Scored:
    """Compares an order with the truth: masks bool [N, H, W], farthest object first."""
    related = {(each.front, each.behind) for each in order.relations}
    pairs = [(b, a) for a in range(len(modal)) for b in range(a + 1, len(modal)) if (amodal[a] & modal[b]).any()]
    right = sum(pair in related for pair in pairs)
    wrong = sum(pair[::-1] in related for pair in pairs)
    passes = tuple(len(order.passes(strategy)) for strategy in STRATEGIES)
    layered = sum(int(order.layers[front] < order.layers[behind]) for front, behind in pairs)
    return Scored(right, wrong, len(pairs) - right - wrong, layered, len(modal), passes)


def run_scene(seed: int, size: tuple[int, int], blur: float, noise: float) -> Scored | None:
    """Orders the objects of a scene; None if fewer than two are seen.

    Args:
        seed: of the scene, and of the noise.
        size: (H, W) in pixels.
        blur: deviation of the Gaussian over depth in pixels; 0 for none.
        noise: deviation of the noise on depth, which is in [0, 1].
    """
    things = make_things(seed, 1, size)
    seen = np.flatnonzero(things.modal[:, 0].sum(axis=(1, 2)) >= LEAST)
    if len(seen) < 2:
        return None
    depth = things.depth[0]
    if blur:
        depth = np.asarray(cv2.GaussianBlur(depth, (0, 0), blur))
    depth = depth + np.random.default_rng(seed).normal(0, noise, depth.shape)
    modal = things.modal[seen, 0]
    return score(occlusion_order(modal, depth), modal, things.amodal[seen, 0])


def tabulate(scenes: Sequence[Scored]) -> Row:
    """Sums the scenes up."""
    right, wrong, missed, layered = (
        sum(getattr(each, name) for each in scenes) for name in ("right", "wrong", "missed", "layered")
    )
    pairs = right + wrong + missed
    accuracy, layer_accuracy = (100 * count / pairs if pairs else float("nan") for count in (right, layered))
    passes = tuple(np.mean([each.passes for each in scenes], axis=0).tolist()) if scenes else ()
    return Row(pairs, wrong, missed, accuracy, layer_accuracy, passes)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=400, show_default=True)
@click.option("--height", type=click.IntRange(min=16), default=64, show_default=True)
@click.option("--width", type=click.IntRange(min=16), default=128, show_default=True)
@click.option("--blur", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Pixels; of the second row.")
@click.option("--noise", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Of depth in [0, 1].")
@click.option(
    "--least-objects", type=click.IntRange(min=2), default=2, show_default=True, help="Leaves out scenes with fewer."
)
@reported_errors()
def main(scenes: int, height: int, width: int, blur: float, noise: float, least_objects: int) -> None:
    """Accuracy over pairs of which one hides the other, and passes per scene, as a Markdown table."""
    click.echo(f"| depth | scenes | pairs | wrong | missed | relations | layers right | {' | '.join(STRATEGIES)} |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|" + "---:|" * len(STRATEGIES))
    for name, softness, deviation in (("exact", 0.0, 0.0), ("blurred, noisy", blur, noise)):
        runs = (run_scene(FIRST_SEED + index, (height, width), softness, deviation) for index in range(scenes))
        scored = [run for run in runs if run is not None and run.objects >= least_objects]
        row = tabulate(scored)
        passes = " | ".join(f"{each:.2f}" for each in row.passes) or " | " * (len(STRATEGIES) - 1)
        click.echo(
            f"| {name} | {len(scored)} | {row.pairs} | {row.wrong} | {row.missed} | {row.accuracy:.1f} | "
            f"{row.layer_accuracy:.1f} | {passes} |"
        )


if __name__ == "__main__":
    main()
