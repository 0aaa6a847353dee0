"""`amodal demo`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from .console import print_json
from .options import folder_options, json_option, quiet_option, steps_option, threads_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amodal.runtime.model import Model
    from amodal.runtime.scenes import Scene

_FPS = 8.0


@click.command("demo")
@folder_options("DIR", default="amodal-demo")
@click.option(
    "--family",
    type=click.Choice(["diffusion-vas", "sameo"]),
    default="diffusion-vas",
    help="Whose default model is run: on the clip as a whole with depth, or on each frame with the box of what is "
    "visible, which is faster and less good.",
)
@click.option("--seed", type=click.IntRange(min=0), default=8, help="Seed of the scene.")
@click.option("--noise-seed", type=int, default=23, help="Seed of the noise; SAMEO has none.")
@steps_option(int)
@threads_option(int)
@json_option("result.json")
@quiet_option()
def command(**options: Any) -> None:
    """Complete hidden objects in a drawn scene; needs no download.

    Draws a scene in which an object is partly hidden, runs the default model on it, and scores the hidden part of the
    result. Takes about a minute, or some seconds with --family sameo. Writes sheet.png and demo.gif (frame, visible
    mask, predicted whole, truth and, except with SAMEO, completed RGB), the scene, and the results.

    \b
    Examples:
      amodal demo
      amodal demo --seed 12 --steps 10 -o another
      amodal demo --family sameo -o pictures
      amodal demo --json -q
    """
    from amodal.runtime.errors import InputError

    given = click.get_current_context().get_parameter_source
    for name in ("steps", "noise_seed"):
        if options["family"] == "sameo" and given(name) is not ParameterSource.DEFAULT:
            raise InputError(f"`{name}` is about drawing from noise, which SAMEO does not do; omit it.", field=name)
    result, summary = _run(options)
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        click.echo(summary)


class _Found(NamedTuple):
    """What a model finds in a scene: whole masks bool [T, H, W] and RGB uint8 [T, H, W, 3], None without."""

    masks: NDArray[np.bool_]
    frames: NDArray[np.uint8] | None
    seconds: dict[str, float]
    settings: dict[str, Any]


def _run(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Runs the default model on a scene and writes the folder of `amodal demo`; returns result.json and a summary."""
    from rich.console import Console

    from amodal import __version__
    from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate, render
    from amodal.runtime.files.atomic import staged_folder
    from amodal.runtime.files.overlay import write_contact_sheet, write_panels
    from amodal.runtime.files.results import write_frames_png, write_json, write_masks_json, write_masks_png
    from amodal.runtime.scenes import write_scene

    from .families.diffusion_vas.results import MARKER

    out, find = Path(options["out"]), _FINDERS[options["family"]]
    start = time.perf_counter()
    with staged_folder(options["out"], options["overwrite"], MARKER) as folder:
        scene, found = find(options)
        truth = ClipTruth("demo", scene.modal, scene.amodal, scene.whole, scene.frames, scene.boxes)
        report = evaluate([(truth, ClipPrediction([found.masks], found.frames))], "strict")
        write_scene(folder / "scene", scene, _FPS)
        write_masks_png(folder / "amodal_masks", found.masks)
        if found.frames is not None:
            write_frames_png(folder / "completed", found.frames)
        write_masks_json(folder / "masks.json", scene.modal, found.masks)
        pictures = (scene.frames, scene.modal, found.masks, found.frames)
        write_contact_sheet(folder / "sheet.png", *pictures, columns=4, truth=scene.amodal)
        write_panels(folder / "demo.gif", *pictures, truth=scene.amodal, fps=_FPS)
        seconds = {**found.seconds, "total": time.perf_counter() - start}
        completed = [] if found.frames is None else ["completed/"]
        result: dict[str, Any] = {
            "schema_version": 1,
            "amodal_version": __version__,
            "settings": found.settings,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "quality": report.model_dump(mode="json"),
            "files": ["sheet.png", "demo.gif", "amodal_masks/", *completed, "masks.json", "scene/", MARKER],
        }
        write_json(folder / MARKER, result)
    console = Console(width=100, highlight=False)
    with console.capture() as table:
        console.print(render(report))
    pictures_at = f"Pictures: {out / 'sheet.png'}, {out / 'demo.gif'}"
    return result, f"{table.get().rstrip()}\n\n{pictures_at}\n{seconds['total']:.1f} s in all."


def _find_in_clip(options: dict[str, Any]) -> tuple[Scene, _Found]:
    """Runs both stages of the default model of Diffusion-VAS on a clip."""
    from amodal.runtime.bundle.reading import DEFAULT_BUNDLE
    from amodal.runtime.loading import load

    from .progress import StageBars

    steps, noise = options["steps"], options["noise_seed"]
    bars = StageBars(options["quiet"], steps)
    with (
        load(DEFAULT_BUNDLE, threads=options["threads"], progress=bars.component) as model,
        bars.show(["segment", "complete"]),
    ):
        scene = _scene_for(model, options["seed"])
        shared = {"steps": steps, "fps": _FPS}
        seen = model.segment(scene.modal, depth=scene.depth, seed=noise, callback=bars.stage("segment"), **shared)
        whole = model.complete(
            scene.frames, scene.modal, seen.masks, seed=seen.noise, callback=bars.stage("complete"), **shared
        )
    settings = {"seed": noise, "scene": scene.seed, "steps": steps}
    return scene, _Found(seen.masks, whole.frames, {"segment": seen.seconds, "complete": whole.seconds}, settings)


def _find_in_frames(options: dict[str, Any]) -> tuple[Scene, _Found]:
    """Runs the default model of SAMEO on each frame, from the box of what is visible, united with it."""
    import numpy as np

    from amodal.runtime.loading import load

    from .progress import activity

    with (
        activity(options["quiet"], "predict") as report,
        load("default-sameo", threads=options["threads"], progress=report) as model,
    ):
        scene = _scene_for(model, options["seed"])
        start = time.perf_counter()
        masks = np.zeros_like(scene.modal)
        for t in np.flatnonzero(scene.modal.any(axis=(1, 2))):
            report("frame", "", int(t) + 1, len(masks))
            masks[t] = model.predict_from_masks(scene.frames[t], scene.modal[t][None]).masks[0]
        seconds = {"predict": time.perf_counter() - start}
    return scene, _Found(masks, None, seconds, {"family": "sameo", "scene": scene.seed, "box": "visible"})


def _scene_for(model: Model, seed: int) -> Scene:
    from amodal.runtime.scenes import make_scene

    frames = model.config.frames
    return make_scene(seed, 8 if frames == 1 else frames, model.config.size)


_FINDERS: dict[str, Callable[[dict[str, Any]], tuple[Scene, _Found]]] = {
    "diffusion-vas": _find_in_clip,
    "sameo": _find_in_frames,
}
