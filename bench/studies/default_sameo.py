"""Quality of a SAMEO bundle on unseen scenes, frame by frame: `python -m amodal.bench.studies.default_sameo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from amodal.runtime.loading import load
from amodal.runtime.model import Model
from amodal.runtime.scenes import Scene, make_scene

from ..quality import ClipPrediction, ClipTruth, MaskScores, evaluate
from ..running.scene_runs import FIRST_SEED
from . import reported_errors

Bools = NDArray[np.bool_]

_FRAMES, _SIZE = 8, (64, 128)


class Found(NamedTuple):
    """What one kind of box found in a scene.

    Attributes:
        masks: bool [T, H, W]; empty in frames without a box.
        errors: differences of predicted and true IoU, one per frame with a box.
    """

    masks: Bools
    errors: list[float]


def find(model: Model, scene: Scene, asked: Bools) -> Found:
    """Asks for the object of each frame by the box of its mask in `asked`, bool [T, H, W]."""
    masks, errors = np.zeros_like(asked), []
    for t in np.flatnonzero(asked.any(axis=(1, 2))):
        made = model.predict_from_masks(scene.frames[t], asked[t][None], unite=False)
        masks[t] = made.masks[0]
        true = (masks[t] & scene.amodal[t]).sum() / max(1, (masks[t] | scene.amodal[t]).sum())
        errors.append(float(made.iou[0] - true))
    return Found(masks, errors)


def table(scenes: Sequence[Scene], found: dict[str, list[Found]]) -> str:
    """Returns a Markdown table: mIoU and strict mIoU_occ of each kind of box, and the error of the predicted IoU."""
    lines = ["| | mIoU | mIoU_occ | error of the predicted IoU |", "|---|---:|---:|---:|"]
    for box, each in found.items():
        error = f"{np.abs(np.concatenate([one.errors for one in each])).mean():.3f}"
        for united in (False, True):
            masks = [one.masks | scene.modal if united else one.masks for one, scene in zip(each, scenes, strict=True)]
            pairs = [
                (ClipTruth(f"scene {scene.seed}", scene.modal, scene.amodal), ClipPrediction([mask]))
                for scene, mask in zip(scenes, masks, strict=True)
            ]
            scores: MaskScores = evaluate(pairs, "strict").row("Top-1").strict  # type: ignore[assignment]
            hidden = "-" if scores.miou_occ is None else f"{100 * scores.miou_occ:.1f}"
            name = f"{box}, united with what is visible" if united else box
            lines.append(f"| {name} | {100 * scores.miou:.1f} | {hidden} | {'' if united else error} |")
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=FIRST_SEED, show_default=True, help="Seed of the first.")
@click.option("--bundle", default="default-sameo", show_default=True)
@reported_errors()
def main(scenes: int, first: int, bundle: str) -> None:
    """Mean IoU by the box of the visible mask and of the whole one, as a Markdown table."""
    model = load(bundle, threads=1)
    made, found = [], dict[str, list[Found]]()
    for seed in track(range(first, first + scenes), "scenes", console=Console(stderr=True), transient=True):
        scene = make_scene(seed, _FRAMES, _SIZE)
        made.append(scene)
        for box, asked in (("visible box", scene.modal), ("whole box", scene.amodal)):
            found.setdefault(box, []).append(find(model, scene, asked))
    click.echo(table(made, found))


if __name__ == "__main__":
    main()
