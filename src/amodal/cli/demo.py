"""`amodal demo`."""

from __future__ import annotations

from typing import Any

import click

from .console import print_json


@click.command("demo")
@click.option("-o", "--out", default="amodal-demo", show_default=True, metavar="DIR", help="Folder to write.")
@click.option("--seed", type=click.IntRange(min=0), default=8, show_default=True, help="Of the scene.")
@click.option("--noise-seed", type=int, default=23, show_default=True, help="Of the noise.")
@click.option("--steps", type=int, default=25, show_default=True, help="Sampler steps.")
@click.option("--threads", type=int, metavar="N", help="CPU threads. Default: all cores.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if amodal wrote it.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(**options: Any) -> None:
    """See hidden objects completed, in a minute, with nothing to download.

    Draws a scene in which one object is hidden, runs both stages of the default model on it, and says how well the
    hidden part was found. Leaves sheet.png and demo.gif (frame, visible mask, predicted whole, truth, completed RGB),
    the scene, and the results.

    \b
    Examples:
      amodal demo
      amodal demo --seed 12 --steps 10 -o another
      amodal demo --json -q
    """
    from .demonstration import run_demo

    result, summary = run_demo(options)
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        click.echo(summary)
