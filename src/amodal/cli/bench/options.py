"""Options that the benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from amodal.cli.options import (
    churn_option,
    combined,
    execution_options,
    json_option,
    noise_option,
    stage_option,
    steps_option,
)

_F = TypeVar("_F", bound=Callable[..., Any])


def _writable(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """Refuses a file that cannot be written, before anything is measured."""
    if file is not None:
        existing = next((folder for folder in file.absolute().parents if folder.exists()), None)
        if existing is not None and not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            why = "cannot be written to" if existing.is_dir() else "is a file"
            raise click.BadParameter(
                f"{file} cannot be written: {existing} {why}; choose another place.", context, option
            )
    return file


work_options = combined(
    stage_option,
    steps_option(),
    click.option("--guidance", type=float, default=1.5, help="Classifier-free guidance; 1 turns it off."),
    churn_option,
    noise_option,
)
"""What a clip computes: --stage, --steps, --guidance, --churn, --seed."""

output_options = combined(
    click.option(
        "-o",
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_writable,
        help="Also write a results file.",
    ),
    json_option("the results file"),
)
"""What is done with the results: -o, --json."""

clip_options = combined(work_options, execution_options(), output_options)
"""What a clip computes, how it is run, and what is done with the results."""


def checkpoint_options(purpose: str = "Checkpoint of the segment stage") -> Callable[[_F], _F]:
    """Where torch finds the weights: --segment and --complete."""
    text = f"{purpose}. Default: the bundle's source, if it is an absolute path or random."
    return combined(
        click.option("--segment", metavar="CKPT", help=text),
        click.option("--complete", metavar="CKPT", help="The same for the complete stage."),
    )
