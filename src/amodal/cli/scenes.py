"""`amodal scenes`."""

from __future__ import annotations

from typing import Any

import click

from .console import SizeType, print_json


@click.command("scenes")
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder to write; made whole or not at all.")
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many scenes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first; the rest follow.")
@click.option("--frames", type=click.IntRange(min=1), default=8, show_default=True, help="Frames per scene.")
@click.option("--size", type=SizeType(), default="64x128", show_default=True, metavar="HxW", help="Of the frames.")
@click.option("--fps", type=float, default=8.0, show_default=True, help="Written into scene.json.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if amodal wrote it.")
@click.option("--json", "as_json", is_flag=True, help="Print scenes.json to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(**options: Any) -> None:
    """Videos of things that hide one another, with the truth of what is hidden.

    Each DIR/scene_NNNN holds frames/, masks/ and depth/ as `amodal run` reads them, truth/amodal_masks/ and
    truth/completed/ (whole-object RGB) as `amodal eval` does, and scene.json. The default model was trained on seeds
    from 1000000 on; smaller ones it has not seen.

    \b
    Examples:
      amodal scenes -o scenes -n 10
      amodal run default --frames scenes/scene_0000/frames --masks scenes/scene_0000/masks \\
          --depth scenes/scene_0000/depth -o out
      amodal eval out --truth scenes/scene_0000
    """
    from .demonstration import write_scenes

    facts = write_scenes(options)
    if options["as_json"]:
        print_json(facts)
    elif not options["quiet"]:
        first, last = facts["scenes"][0], facts["scenes"][-1]
        names = first["name"] if first is last else f"{first['name']} ... {last['name']}"
        click.echo(f"Wrote {options['out']}: {names}, {facts['hidden']:.0%} of the object hidden on average.")
