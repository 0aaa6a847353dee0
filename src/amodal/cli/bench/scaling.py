"""`amodal bench scaling`."""

from __future__ import annotations

from typing import Any

import click

from amodal.cli.console import warn
from amodal.cli.options import COUNT, bundle_argument, execution_options

from .options import checkpoint_options, output_options, work_options


@click.command("scaling")
@bundle_argument
@click.option(
    "--axis", "axes", multiple=True, metavar="NAME", help="steps, samples, frames or pixels (repeatable). Default: all."
)
@click.option("--repeats", type=COUNT, default=3, help="Clips per value.")
@checkpoint_options("Checkpoint of the segment stage, to export at other sizes")
@work_options
@execution_options()
@output_options
def command(bundle: str, **options: Any) -> None:
    """Measure how time and memory grow with frames, resolution, steps and samples.

    A bundle has one clip size. For other frames and pixels it is exported again from its checkpoints to a temporary
    folder, which needs the export extra.

    \b
    Examples:
      amodal bench scaling default --axis steps --axis samples
      amodal bench scaling bundle --segment ckpt/ --complete ckpt2/ \\
          --axis frames --axis pixels
    """
    from amodal.bench.measures.scaling import AXES, measure_scaling
    from amodal.cli.progress import Watcher
    from amodal.runtime.families import Bundle

    from .output import checkpoints_from, emit, execution_from, work_from

    opened = Bundle(bundle)
    with Watcher(options["as_json"]).doing("scaling") as progress:
        measured = measure_scaling(
            bundle,
            work_from(opened, options),
            execution_from(options),
            axes=options["axes"] or tuple(AXES),
            repeats=options["repeats"],
            checkpoints=checkpoints_from(options),
            progress=progress,
        )
    emit(opened, measured, options)
    for sweep in measured.sweeps:
        warn([f"{sweep.axis} {value}: {why}" for value, why in sweep.skipped.items()])
