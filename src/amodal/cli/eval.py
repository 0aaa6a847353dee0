"""`amodal eval`."""

from __future__ import annotations

from typing import Any

import click

from .console import print_json
from .options import json_option


@click.command("eval")
@click.argument("predictions", type=click.Path())
@click.option(
    "--truth",
    required=True,
    metavar="DIR|JSON",
    help="A scene folder, a folder of scene folders, or the authors' SAIL-VOS annotations.",
)
@click.option(
    "--mode",
    type=click.Choice(["official", "strict", "both"]),
    default="both",
    help="mIoU as published (1280x800, eroded, misses left out), over every frame with hidden pixels, or both.",
)
@click.option("--top-k", type=int, metavar="K", help="Take K samples; in each frame the best one counts. Default: all.")
@json_option("the report as JSON, clip by clip,")
def command(predictions: str, truth: str, mode: Any, top_k: int | None, as_json: bool) -> None:
    """Score predicted masks and RGB against the truth, beside baselines.

    PREDICTIONS is an output folder of `amodal run`, a folder of such folders named like the scenes, or the authors'
    results json (or a folder of these, one per seed).

    Measures: mIoU, mIoU of the hidden parts, box AP at 0.25, 0.5 and 0.75, flicker, and PSNR of completed RGB inside
    the hidden parts. Baselines: `modal` (the visible mask), `convex` (its hull) and, for RGB, the visible part's mean
    colour.

    \b
    Examples:
      amodal eval out --truth scenes/scene_0000
      amodal eval runs/ --truth scenes/ --mode strict --top-k 3
      amodal eval results_seed23.json --truth sailvos_val.json \\
          --mode official --json
    """
    from amodal.bench.quality import evaluate, read_pairs, render

    report = evaluate(read_pairs(predictions, truth, top_k), mode)
    if as_json:
        print_json(report.model_dump())
        return
    from rich.console import Console

    table, console = render(report), Console(highlight=False)
    # A terminal narrower than the table would cut off figures.
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(table)
