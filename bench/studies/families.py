"""Diffusion-VAS and SAMEO on the same scenes, and both in turn: `python -m amodal.bench.studies.families`.

Each row is one way to find the whole masks of the scenes' objects. Diffusion-VAS sees the clip and its depth, SAMEO one
frame and a box. A cascade takes SAMEO's mask where it is expected to do, and runs Diffusion-VAS on the clip of an
object if a frame of it is left:

- by share: where what is visible covers most of what SAMEO finds, united with it;
- by gate: where nothing nearer borders the object (`amodal.runtime.clips.gate`), so that all of it should be seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from amodal.runtime.clips.gate import Gate, needs_network
from amodal.runtime.loading import load
from amodal.runtime.model import Model
from amodal.runtime.pictures.depth import normalise_clip
from amodal.runtime.scenes import Scene, make_scene

from ..quality import ClipPrediction, ClipTruth, MaskScores, evaluate
from ..running.memory import host_peak
from ..running.process import in_new_process, new_processes
from ..running.scene_runs import FIRST_SEED, SEED
from . import reported_errors

Bools = NDArray[np.bool_]
CLIP, BY_SHARE, BY_GATE = "Diffusion-VAS", "cascade by share", "cascade by gate"
_FRAMES, _SIZE = 8, (64, 128)


class Bundles(NamedTuple):
    """What is compared, and how: `steps` of Diffusion-VAS, and the share from which a cascade takes SAMEO's mask."""

    clip: str
    picture: str
    steps: int
    share: float


class Found(NamedTuple):
    """Masks bool [T, H, W], the seconds that they took, and the frames of which SAMEO's mask was taken."""

    masks: Bools
    seconds: float
    by_picture: Bools


class SceneFound(NamedTuple):
    """What each way found in a scene."""

    truth: ClipTruth
    found: dict[str, Found]


class Prompt(NamedTuple):
    """How SAMEO is asked: with the box of the whole mask or of the visible one, united with what is visible or not."""

    whole: bool
    unite: bool


PROMPTS = {
    "SAMEO, visible box": Prompt(False, False),
    "SAMEO, visible box, united": Prompt(False, True),
    "SAMEO, whole box": Prompt(True, False),
    "SAMEO, whole box, united": Prompt(True, True),
}
_TAKEN = "SAMEO, visible box, united"  # by the cascades


def run_scene(seed: int, bundles: Bundles) -> SceneFound:
    """Finds the object of a scene in every way."""
    scene = make_scene(seed, _FRAMES, _SIZE)
    truth = ClipTruth(f"scene {seed}", scene.modal, scene.amodal)
    found = {CLIP: _by_clip(scene, bundles)}
    found |= {name: _by_picture(scene, bundles, prompt) for name, prompt in PROMPTS.items()}
    single = found[_TAKEN]
    area = np.maximum(single.masks.sum(axis=(1, 2)), 1)
    enough = scene.modal.any(axis=(1, 2)) & (scene.modal.sum(axis=(1, 2)) / area >= bundles.share)
    judged = Gate().judge(scene.modal, normalise_clip(scene.depth))
    found[BY_SHARE] = _cascade(found[CLIP], single, enough, len(enough))
    open_ = ~needs_network(judged)
    found[BY_GATE] = _cascade(found[CLIP], single, open_, int(open_.sum()))
    return SceneFound(truth, found)


def markdown(clips: Sequence[SceneFound], peaks: dict[str, int]) -> str:
    """Returns a table of quality, time and memory; `peaks` are bytes of processes that run one family."""
    lines = [
        "| masks | mIoU | mIoU_occ | ms per object and frame | frames by SAMEO | peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in clips[0].found:
        report = evaluate([(c.truth, ClipPrediction([c.found[name].masks])) for c in clips], "strict")
        if name == CLIP:
            lines += [_line(of, report.row(of), "-", "-", "-") for of in ("modal", "convex")]
        each = [c.found[name] for c in clips]
        frames = sum(len(one.masks) for one in each)
        time_each = f"{1000 * sum(one.seconds for one in each) / frames:.1f}"
        share = f"{100 * sum(int(one.by_picture.sum()) for one in each) / frames:.0f} %"
        families = [CLIP] if name == CLIP else ["SAMEO"] if name in PROMPTS else [CLIP, "SAMEO"]
        peak = " + ".join(f"{peaks[family] / 1e6:.0f}" for family in families)
        lines.append(_line(name, report.row("Top-1"), time_each, share, peak))
    return "\n".join(lines)


def _line(name: str, row: Any, *cells: str) -> str:
    scores: MaskScores = row.strict
    hidden = "-" if scores.miou_occ is None else f"{100 * scores.miou_occ:.1f}"
    return f"| {name} | {100 * scores.miou:.1f} | {hidden} | {' | '.join(cells)} |"


def _by_clip(scene: Scene, bundles: Bundles) -> Found:
    model = _model(bundles.clip)
    start = time.perf_counter()
    masks = model.segment(scene.modal, depth=scene.depth, seed=SEED, steps=bundles.steps).masks
    return Found(masks, time.perf_counter() - start, np.zeros(len(masks), bool))


def _by_picture(scene: Scene, bundles: Bundles, prompt: Prompt) -> Found:
    """Runs SAMEO on each frame in which there is something to ask with; the others get an empty mask."""
    model, masks = _model(bundles.picture), np.zeros_like(scene.modal)
    asked = scene.amodal if prompt.whole else scene.modal
    start = time.perf_counter()
    for t in np.flatnonzero(asked.any(axis=(1, 2))):
        masks[t] = model.predict_from_masks(scene.frames[t], asked[t][None], unite=False).masks[0]
        if prompt.unite:
            masks[t] |= scene.modal[t]
    return Found(masks, time.perf_counter() - start, np.ones(len(masks), bool))


def _cascade(clip: Found, single: Found, taken: Bools, asked: int) -> Found:
    """Takes SAMEO's masks where `taken`; it ran on `asked` frames, and Diffusion-VAS unless all are taken."""
    masks = np.where(taken[:, None, None], single.masks, clip.masks)
    seconds = single.seconds * asked / len(taken) + (0.0 if taken.all() else clip.seconds)
    return Found(masks, seconds, taken)


@lru_cache(2)
def _model(bundle: str) -> Model:
    """Returns a model of this process, with everything loaded."""
    model = load(bundle, threads=1)
    model.warm_up()
    return model


def _peak(bundles: Bundles, family: str) -> int:
    """Returns the peak bytes of a process that runs one family on a scene."""
    scene = make_scene(0, _FRAMES, _SIZE)
    if family == CLIP:
        _by_clip(scene, bundles)
    else:
        _by_picture(scene, bundles, PROMPTS[_TAKEN])
    return host_peak()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=FIRST_SEED, show_default=True, help="Seed of the first.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes, a thread each.")
@click.option("--clip", default="default", show_default=True, metavar="BUNDLE", help="Diffusion-VAS.")
@click.option("--picture", default="default-sameo", show_default=True, metavar="BUNDLE", help="SAMEO.")
@click.option("--steps", type=click.IntRange(min=1), default=25, show_default=True, help="Of Diffusion-VAS.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="A cascade takes SAMEO's mask where at least this share of it is visible.",
)
@reported_errors()
def main(scenes: int, first: int, workers: int, **options: Any) -> None:
    """Quality, time and memory of both families on unseen scenes, as a Markdown table."""
    bundles = Bundles(**options)
    peaks = {family: in_new_process(_peak, bundles, family) for family in (CLIP, "SAMEO")}
    with new_processes(workers, "scenes", "free some memory, or try fewer `workers`") as pool:
        futures = [pool.submit(run_scene, first + index, bundles) for index in range(scenes)]
        shown = track((f.result() for f in futures), "scenes", scenes, console=Console(stderr=True), transient=True)
        clips = list(shown)
    click.echo(markdown(clips, peaks))


if __name__ == "__main__":
    main()
