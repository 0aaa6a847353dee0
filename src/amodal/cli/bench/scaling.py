"""`amodal bench scaling`."""

from __future__ import annotations

from typing import Any

import click

from amodal.cli.options import COUNT, bundle_argument, checkpoint_options, clip_options


@click.command("scaling")
@bundle_argument
@click.option(
    "--axis", "axes", multiple=True, metavar="NAME", help="steps, samples, frames or pixels (repeatable). Default: all."
)
@click.option(
    "--clips",
    is_flag=True,
    help="Instead: batches of 10 to 1,000 clips that compute nothing, with 1 and 2 workers: what a batch costs.",
)
@click.option("--repeats", type=COUNT, default=3, help="Clips per value.")
@checkpoint_options("Checkpoint of the segment stage, to export at other sizes")
@clip_options
def command(**options: Any) -> None:
    """Measure how time and memory grow with frames, resolution, steps and samples.

    A bundle has one clip size. For other frames and pixels it is exported again from its checkpoints to a temporary
    folder, which needs the export extra.

    \b
    Examples:
      amodal bench scaling default --axis steps --axis samples
      amodal bench scaling bundle --segment ckpt/ --complete ckpt2/ \\
          --axis frames --axis pixels
      amodal bench scaling default --clips
    """
    from amodal.bench.measures.batches import measure_batches
    from amodal.bench.measures.scaling import AXES, measure_scaling
    from amodal.cli.progress import activity
    from amodal.runtime.errors import InputError
    from amodal.runtime.families import Bundle

    from .output import emit, measure, work_from

    if options["clips"]:
        if options["axes"]:
            raise InputError("--clips and --axis measure different things; give one of them.")
        work = work_from(Bundle(options["bundle"]), options)
        with activity(options["as_json"], "scaling") as progress:
            emit(measure_batches(work, progress=progress), options)
        return

    axes = options["axes"] or tuple(AXES)
    measured = measure("scaling", measure_scaling, options, axes=axes, repeats=options["repeats"])
    emit(measured, options)
