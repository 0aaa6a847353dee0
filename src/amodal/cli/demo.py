"""`amodal demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .console import print_json
from .options import folder_options, json_option, quiet_option, steps_option, threads_option

_FPS = 8.0


@click.command("demo")
@folder_options("DIR", default="amodal-demo")
@click.option("--seed", type=click.IntRange(min=0), default=8, help="Seed of the scene.")
@click.option("--noise-seed", type=int, default=23, help="Seed of the noise.")
@steps_option(int)
@threads_option(int)
@json_option("result.json")
@quiet_option()
def command(**options: Any) -> None:
    """Complete hidden objects in a drawn scene; needs no download.

    Draws a scene in which an object is partly hidden, runs both stages of the default model on it, and scores the
    hidden part of the result. Takes about a minute. Writes sheet.png and demo.gif (frame, visible mask, predicted
    whole, truth, completed RGB), the scene, and the results.

    \b
    Examples:
      amodal demo
      amodal demo --seed 12 --steps 10 -o another
      amodal demo --json -q
    """
    result, summary = _run(options)
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        click.echo(summary)


def _run(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Runs the default model on a scene and writes the folder of `amodal demo`; returns result.json and a summary."""
    from rich.console import Console

    from amodal import __version__
    from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate, render
    from amodal.runtime.bundle.reading import DEFAULT_BUNDLE
    from amodal.runtime.files.atomic import staged_folder
    from amodal.runtime.files.overlay import write_contact_sheet, write_panels
    from amodal.runtime.files.results import write_frames_png, write_json, write_masks_json, write_masks_png
    from amodal.runtime.loading import load
    from amodal.runtime.scenes import make_scene, write_scene

    from .families.diffusion_vas.results import MARKER
    from .progress import StageBars

    out, steps = Path(options["out"]), options["steps"]
    start = time.perf_counter()
    bars = StageBars(options["quiet"], steps)
    with (
        staged_folder(options["out"], options["overwrite"], MARKER) as folder,
        load(DEFAULT_BUNDLE, threads=options["threads"], progress=bars.component) as model,
        bars.show(["segment", "complete"]),
    ):
        scene = make_scene(options["seed"], model.config.frames, model.config.size)
        shared = {"steps": steps, "fps": _FPS}
        seen = model.segment(
            scene.modal, depth=scene.depth, seed=options["noise_seed"], callback=bars.stage("segment"), **shared
        )
        whole = model.complete(
            scene.frames, scene.modal, seen.masks, seed=seen.noise, callback=bars.stage("complete"), **shared
        )
        bars.phase("writing")
        truth = ClipTruth("demo", scene.modal, scene.amodal, scene.whole, scene.frames, scene.boxes)
        report = evaluate([(truth, ClipPrediction([seen.masks], whole.frames))], "strict")
        write_scene(folder / "scene", scene, _FPS)
        write_masks_png(folder / "amodal_masks", seen.masks)
        write_frames_png(folder / "completed", whole.frames)
        write_masks_json(folder / "masks.json", scene.modal, seen.masks)
        pictures = (scene.frames, scene.modal, seen.masks, whole.frames)
        write_contact_sheet(folder / "sheet.png", *pictures, columns=4, truth=scene.amodal)
        write_panels(folder / "demo.gif", *pictures, truth=scene.amodal, fps=_FPS)
        seconds = {"segment": seen.seconds, "complete": whole.seconds, "total": time.perf_counter() - start}
        result: dict[str, Any] = {
            "schema_version": 1,
            "amodal_version": __version__,
            "settings": {"seed": options["noise_seed"], "scene": scene.seed, "steps": steps},
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "quality": report.model_dump(mode="json"),
            "files": ["sheet.png", "demo.gif", "amodal_masks/", "completed/", "masks.json", "scene/", MARKER],
        }
        write_json(folder / MARKER, result)
    console = Console(width=100, highlight=False)
    with console.capture() as table:
        console.print(render(report))
    pictures_at = f"Pictures: {out / 'sheet.png'}, {out / 'demo.gif'}"
    return result, f"{table.get().rstrip()}\n\n{pictures_at}\n{seconds['total']:.1f} s in all."
