"""`amodal eval`."""

from __future__ import annotations

from typing import Any

import click

from amodal.runtime.errors import InputError

from .console import print_json
from .datasets import check_dataset, dataset_options, merge_folders, run_dataset
from .options import json_option


@click.command("eval")
@click.argument("predictions", type=click.Path(), nargs=-1)
@click.option(
    "--truth",
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
@dataset_options
@json_option("the report as JSON, clip by clip,")
def command(predictions: tuple[str, ...], truth: str | None, mode: Any, top_k: int | None, **options: Any) -> None:
    """Score predicted masks and RGB against the truth, or a whole data set by its published protocols.

    PREDICTIONS is an output folder of `amodal run`, a folder of such folders named like the scenes, or the authors'
    results json (or a folder of these, one per seed). With --merge, the folders of shards.

    Measures: mIoU, mIoU of the hidden parts, box AP at 0.25, 0.5 and 0.75, flicker, and PSNR of completed RGB inside
    the hidden parts. Baselines: `modal` (the visible mask), `convex` (its hull) and, for RGB, the visible part's mean
    colour.

    With --dataset, -o gets a file per clip and seed, so that a stopped run goes on; then table.md, table.csv,
    table.json and results files.

    \b
    Examples:
      amodal eval out --truth scenes/scene_0000
      amodal eval runs/ --truth scenes/ --mode strict --top-k 3
      amodal eval results_seed23.json --truth sailvos_val.json \\
          --mode official --json
      amodal eval --dataset sail-vos --root DIR --results eval_outputs -o out
      amodal eval --dataset tao-amodal --root DIR --bundle bundle \\
          --samples 3 --shard 1/8 -o shard1
      amodal eval --merge shard1 shard2 -o table
    """
    if options["merge"] and options["dataset"]:
        raise InputError("--merge and --dataset exclude each other; merge the folders that --dataset wrote.")
    if options["merge"]:
        merge_folders(predictions, options)
    elif options["dataset"]:
        if predictions or truth:
            raise InputError("--dataset takes predictions as --results, and the truth from --root.")
        (check_dataset if options["check"] else run_dataset)(options)
    else:
        _score(predictions, truth, mode, top_k, options["as_json"])


def _score(predictions: tuple[str, ...], truth: str | None, mode: Any, top_k: int | None, as_json: bool) -> None:
    if len(predictions) != 1:
        raise click.UsageError("Missing argument 'PREDICTIONS'." if not predictions else "Give one PREDICTIONS.")
    if truth is None:
        raise click.UsageError("Missing option '--truth'; or give '--dataset' or '--merge'.")
    from amodal.bench.quality import evaluate, read_pairs, render

    report = evaluate(read_pairs(predictions[0], truth, top_k), mode)
    if as_json:
        print_json(report.model_dump())
        return
    from rich.console import Console

    table, console = render(report), Console(highlight=False)
    # A terminal narrower than the table would cut off figures.
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(table)
