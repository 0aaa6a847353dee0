"""`amodal scenes`."""

from __future__ import annotations

from typing import Any

import click

from .console import SIZE, print_json
from .options import COUNT, folder_options, json_option, quiet_option

_MARKER = "scenes.json"


@click.command("scenes")
@folder_options("DIR")
@click.option("-n", "--count", type=COUNT, default=1, help="Number of scenes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the first scene; the next have the next.")
@click.option("--frames", type=COUNT, default=8, help="Frames per scene.")
@click.option("--size", type=SIZE, default="64x128", metavar="HxW", help="Size of the frames.")
@click.option("--fps", type=float, default=8.0, help="Frames per second, for scene.json.")
@json_option("scenes.json")
@quiet_option()
def command(**options: Any) -> None:
    """Draw videos of objects that hide one another, with the truth of what is hidden.

    Each DIR/scene_NNNN has frames/, masks/ and depth/ for `amodal run`, truth/amodal_masks/ and truth/completed/
    (whole-object RGB) for `amodal eval`, and scene.json. The default model was trained on seeds from 1000000 on; it has
    not seen smaller ones.

    \b
    Examples:
      amodal scenes -o scenes -n 10
      amodal run default --frames scenes/scene_0000/frames \\
          --masks scenes/scene_0000/masks --depth scenes/scene_0000/depth -o out
      amodal eval out --truth scenes/scene_0000
    """
    facts = _write(options)
    if options["as_json"]:
        print_json(facts)
    elif not options["quiet"]:
        first, last = facts["scenes"][0], facts["scenes"][-1]
        names = first["name"] if first is last else f"{first['name']} ... {last['name']}"
        click.echo(f"Wrote {options['out']}: {names}, {facts['hidden']:.0%} of the object hidden on average.")


def _write(options: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder of `amodal scenes`; returns the content of scenes.json."""
    from amodal import __version__
    from amodal.runtime.files.atomic import staged_folder
    from amodal.runtime.files.results import write_json
    from amodal.runtime.scenes import make_scene, write_scene

    from .progress import activity

    out, overwrite, count = options["out"], options["overwrite"], options["count"]
    height, width = options["size"]
    scenes, hidden = [], 0.0
    with staged_folder(out, overwrite, _MARKER) as folder, activity(options["quiet"], "scenes") as progress:
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
            "files": [*(f"{scene['name']}/" for scene in scenes), _MARKER],
        }
        write_json(folder / _MARKER, facts)
    return facts
