"""The part of `amodal eval` for whole data sets: --dataset and --merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from amodal.runtime.errors import InputError
from amodal.runtime.paths import displayed

from .console import Parsed, print_json
from .options import COUNT, combined

NAMES = (
    "sail-vos",
    "tao-amodal",
    "tao-amodal-toolkit",
    "movi-b",
    "movi-d",
    "cocoa",
    "cocoa-cls",
    "d2sa",
    "kins",
    "kins-2020",
    "tabe-51",
)


def _shard(text: str) -> tuple[int, int]:
    first, count = (int(part) for part in text.split("/"))
    if not 1 <= first <= count:
        raise ValueError
    return first, count


def _range(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(":"))
    if not 0 <= low <= high <= 1:
        raise ValueError
    return low, high


dataset_options = combined(
    click.option("--dataset", type=click.Choice(NAMES), help="Score a whole data set by its published protocols."),
    click.option("--root", metavar="DIR", help="Folder of the data set; docs/datasets.md says what is in it."),
    click.option("--bundle", metavar="DIR", help="Run this bundle on every clip."),
    click.option("--results", metavar="JSON|DIR", help="Score these results files instead, one per seed."),
    click.option(
        "--samples", type=COUNT, metavar="K", help="Seeds per clip. Default: 1, or all that are in --results."
    ),
    click.option("--seed", type=int, help="The first seed of --bundle. Default: 23."),
    click.option("--steps", type=click.IntRange(min=1), help="Sampler steps of --bundle. Default: 25."),
    click.option(
        "--shard",
        type=Parsed("I/N", _shard, "is not i/n with whole numbers and 1 <= i <= n."),
        default="1/1",
        help="Every N-th clip, from the I-th. Shards may write to one OUT, or each to its own for --merge.",
    ),
    click.option(
        "--visibility",
        type=Parsed("LO:HI", _range, "is not two shares as LO:HI, 0 <= LO <= HI <= 1."),
        help="In the table, keep clips of this mean visibility, both ends included.",
    ),
    click.option("--merge", is_flag=True, help="PREDICTIONS are folders of shards: write their table to OUT."),
    click.option("--check", is_flag=True, help="Only say what of the data set is missing, and where it is to be had."),
    click.option("-o", "--out", metavar="OUT", help="Folder for --dataset and --merge; run again to go on in it."),
)
"""Options of `amodal eval` for data sets."""


def check_dataset(options: dict[str, Any]) -> None:
    """Prints what is missing; exits with 2 if something is."""
    from amodal.bench.datasets import entry

    root = _required(options, "root")
    missing = entry(options["dataset"]).open(root).check()
    for each in missing:
        click.echo(displayed(str(each)))
    if missing:
        raise click.exceptions.Exit(2)
    click.echo(f"{options['dataset']}: everything is there.")


def run_dataset(options: dict[str, Any]) -> None:
    """Evaluates the clips of a shard; writes the table if it is the only one."""
    from amodal.bench.datasets import Request, entry, evaluate_clips

    out = _required(options, "out")
    for name in ("seed", "steps"):
        if options["bundle"] is None and options[name] is not None:
            raise InputError(f"`{name}` is for a model; give `bundle`, or omit it.", field=name)
    settings = {} if options["steps"] is None else {"steps": options["steps"]}
    request = Request(
        entry=entry(options["dataset"]),
        root=_required(options, "root"),
        out=out,
        results=None if options["results"] is None else Path(options["results"]),
        bundle=None if options["bundle"] is None else Path(options["bundle"]),
        samples=options["samples"],
        seed=23 if options["seed"] is None else options["seed"],
        shard=options["shard"],
        settings=settings,
    )
    evaluate_clips(request)
    if options["shard"] == (1, 1):
        write_table([out], out, options)
    else:
        first, count = options["shard"]
        click.echo(f"Shard {first} of {count} is in {displayed(str(out))}; `amodal eval --merge` makes the table.")


def write_table(folders: list[Path], out: Path, options: dict[str, Any]) -> None:
    """Merges folders and prints the table."""
    from amodal.bench.datasets import merge

    report = merge(folders, out, options["visibility"])
    if options["as_json"]:
        print_json(report)
        return
    click.echo((out / "table.md").read_text(encoding="utf-8"), nl=False)


def merge_folders(folders: tuple[str, ...], options: dict[str, Any]) -> None:
    """`amodal eval --merge`."""
    write_table([Path(folder) for folder in folders], _required(options, "out"), options)


def _required(options: dict[str, Any], name: str) -> Path:
    if not options[name]:
        wanted = {"root": "--root with the folder of the data set", "out": "-o with a folder to write"}[name]
        raise InputError(f"{'--merge' if options['merge'] else '--dataset'} needs {wanted}.")
    return Path(options[name])
