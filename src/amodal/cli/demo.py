"""`amodal demo`."""

from __future__ import annotations

from typing import Any

import click

from .console import print_json
from .options import folder_options, json_option, quiet_option, steps_option, threads_option


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
    from .demonstration import run_demo

    result, summary = run_demo(options)
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        click.echo(summary)
