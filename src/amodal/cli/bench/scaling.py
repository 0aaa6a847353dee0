"""`amodal bench scaling`."""

from __future__ import annotations

import statistics
from typing import Any

import click

from amodal.cli.console import human_bytes, table, warn

from .options import backend_options, checkpoint_options, output_options, work_options


@click.command("scaling")
@click.argument("bundle")
@click.option("--axis", "axes", multiple=True, metavar="NAME", help="steps, samples, frames, pixels (repeat). All.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Clips of each value.")
@checkpoint_options("Checkpoint, to export at other sizes. Default: its source, if an absolute path or random.")
@work_options()
@backend_options()
@output_options()
def command(bundle: str, **options: Any) -> None:
    """How time and memory grow with frames, resolution, steps and samples.

    A bundle's clip has one size: for other frames and pixels it is exported again from its checkpoints, to a temporary
    place, which needs the export extra.

    \b
    Examples:
      amodal bench scaling default --axis steps --axis samples
      amodal bench scaling bundle --segment ckpt/ --complete ckpt2/ --axis frames --axis pixels
    """
    from amodal.bench.measures.scaling import AXES, measure_scaling
    from amodal.runtime.families import Bundle

    from .output import checkpoints_from, emit, execution_from, noting, work_from

    opened = Bundle(bundle)
    with noting("scaling", options["as_json"]) as progress:
        measured = measure_scaling(
            bundle,
            work_from(opened, options),
            execution_from(options),
            axes=options["axes"] or tuple(AXES),
            repeats=options["repeats"],
            checkpoints=checkpoints_from(options),
            progress=progress,
        )
    emit(opened, measured, options, lambda: text(measured))
    for sweep in measured.sweeps:
        warn([f"{sweep.axis} {value}: {why}" for value, why in sweep.skipped.items()])


def text(measured: Any) -> str:
    """The tables of a scaling measurement."""
    blocks = []
    for sweep in measured.sweeps:
        rows = [
            [f"{point.value:g}", f"{statistics.median(point.seconds):.3f}", human_bytes(point.peak)]
            for point in sweep.points
        ]
        if rows:
            block = table([sweep.axis, "median s", "peak"], rows, texts=0)
            if len(rows) > 1:
                block += f"\n{sweep.fixed:.3f} s + {sweep.each:.3g} s per unit; exponent {sweep.exponent:.2f}"
            blocks.append(block)
    return "\n\n".join(blocks)
