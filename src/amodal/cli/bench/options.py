"""Options that the benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from amodal.cli.console import BytesType

ABOVE_ZERO = click.FloatRange(min=0, min_open=True)

_F = TypeVar("_F", bound=Callable[..., Any])


def _all(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def add(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _writable(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """Refuses a file that cannot come to be, before anything is measured for it."""
    if file is not None:
        there = next((folder for folder in file.absolute().parents if folder.exists()), None)
        if there is not None and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            why = "cannot be written to" if there.is_dir() else "is a file"
            raise click.BadParameter(f"{file} cannot be written: {there} {why}; choose another place.", context, option)
    return file


def work_options() -> Callable[[_F], _F]:
    """What a clip is asked to do: --stage, --steps, --guidance, --churn, --seed."""
    return _all(
        click.option(
            "--stage", type=click.Choice(["segment", "complete", "both"]), help="Default: what the bundle has."
        ),
        click.option("--steps", type=click.IntRange(min=1), default=25, show_default=True, help="Sampler steps."),
        click.option("--guidance", type=float, default=1.5, show_default=True, help="1 turns it off."),
        click.option("--churn", type=float, default=0.0, show_default=True, help="EDM's S_churn."),
        click.option("--seed", type=int, default=23, show_default=True, help="Of the noise."),
    )


def backend_options(choose: bool = True) -> Callable[[_F], _F]:
    """How it is executed: --backend (if `choose`), --device, --threads, --memory, --vram, --engine-dir."""
    backend = click.option("--backend", metavar="NAME", default="onnxruntime", show_default=True, help="What executes.")
    return _all(
        *([backend] if choose else []),
        click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1. Default: where the backend can."),
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores."),
        click.option(
            "--memory", type=click.Choice(["auto", "resident", "sequential"]), default="resident", show_default=True
        ),
        click.option("--vram", type=BytesType(), help="The most GPU memory to take, for instance 6GB."),
        click.option("--engine-dir", type=click.Path(path_type=Path), help="Folder with the engines."),
    )


def checkpoint_options(
    what: str = "Checkpoint of that stage. Default: its source, if an absolute path or random.",
) -> Callable[[_F], _F]:
    """Where torch finds the weights: --segment, which is `what`, and --complete."""
    return _all(
        click.option("--segment", metavar="CKPT", help=what),
        click.option("--complete", metavar="CKPT", help="The same, for the other stage."),
    )


def output_options() -> Callable[[_F], _F]:
    """What becomes of the results: -o, --json."""
    return _all(
        click.option(
            "-o",
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            callback=_writable,
            help="Also write a results file.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the results file to standard output."),
    )
