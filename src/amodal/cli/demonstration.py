"""What `amodal scenes` and `amodal demo` do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from amodal import __version__
from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate, render
from amodal.runtime.bundle.reading import DEFAULT_BUNDLE
from amodal.runtime.files.atomic import check_output, staged_folder
from amodal.runtime.files.overlay import write_contact_sheet, write_panels
from amodal.runtime.files.results import write_frames_png, write_json, write_masks_json, write_masks_png
from amodal.runtime.model import load
from amodal.runtime.scenes import make_scene, write_scene

from .families.diffusion_vas.results import MARKER
from .progress import StageBars, Watcher

_SCENES_MARKER = "scenes.json"
_FPS = 8.0


def write_scenes(options: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder of `amodal scenes`; returns the content of scenes.json."""
    out, overwrite, count = options["out"], options["overwrite"], options["count"]
    height, width = options["size"]
    check_output(out, overwrite, _SCENES_MARKER)
    scenes, hidden = [], 0.0
    with (
        staged_folder(out, overwrite, _SCENES_MARKER) as folder,
        Watcher(options["quiet"]).doing("scenes") as progress,
    ):
        for index in range(count):
            progress("", done=index, total=count)
            scene = make_scene(options["seed"] + index, options["frames"], options["size"])
            name = f"scene_{index:04d}"
            write_scene(folder / name, scene, options["fps"])
            share = float(1 - scene.visibility.mean())
            scenes.append({"name": name, "seed": scene.seed, "hidden": round(share, 4)})
            hidden += share / count
        facts = {
            "format": "amodal-scenes",
            "version": 1,
            "amodal_version": __version__,
            "frames": options["frames"],
            "height": height,
            "width": width,
            "hidden": round(hidden, 4),
            "scenes": scenes,
        }
        write_json(folder / _SCENES_MARKER, facts)
    return facts


def run_demo(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Runs the default model on a scene and writes the folder of `amodal demo`; returns result.json and a summary."""
    out, steps = Path(options["out"]), options["steps"]
    start = time.perf_counter()
    check_output(options["out"], options["overwrite"], MARKER)
    bars = StageBars(Watcher(options["quiet"]), steps)
    with (
        load(DEFAULT_BUNDLE, threads=options["threads"], progress=bars.component) as model,
        staged_folder(options["out"], options["overwrite"], MARKER) as folder,
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
        bars.writing()
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
