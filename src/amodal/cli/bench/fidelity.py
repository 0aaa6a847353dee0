"""`amodal bench fidelity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import table

from .options import backend_options, checkpoint_options, output_options, work_options

if TYPE_CHECKING:
    from amodal.bench.schema import Fidelity


@click.command("fidelity")
@click.argument("bundle")
@click.option(
    "--against",
    type=click.Choice(["twin", "diffusers"]),
    default="twin",
    show_default=True,
    help="The stored weights, all in float32 on the CPU; or the checkpoint's, by the reference pipeline in torch.",
)
@checkpoint_options()
@work_options()
@backend_options()
@output_options()
def command(bundle: str, **options: Any) -> None:
    """Latents, frames and masks against a run in float32, step by step.

    Both runs see the same scene and the same noise. Stage complete is given the true masks, so that it is judged by
    itself. Whether differences are small enough is what `amodal verify` says.

    \b
    Examples:
      amodal bench fidelity default
      amodal bench fidelity bundle --backend tensorrt_rtx -o fidelity.json
      amodal bench fidelity bundle --against diffusers --segment ckpt/ --complete ckpt2/
    """
    from amodal.bench.measures.fidelity import measure_fidelity
    from amodal.runtime.families import Bundle

    from .output import checkpoints_from, emit, execution_from, noting, work_from

    opened = Bundle(bundle)
    with noting("fidelity", options["as_json"]) as progress:
        measured = measure_fidelity(
            bundle,
            work_from(opened, options),
            execution_from(options),
            against=options["against"],
            checkpoints=checkpoints_from(options),
            progress=progress,
        )
    emit(opened, measured, options, lambda: text(measured))


def text(measured: Fidelity) -> str:
    """The tables of a fidelity measurement."""
    from amodal.bench.measures.fidelity import equal

    executed, stages = measured.executed, measured.stages
    head = f"{executed.backend} {executed.version} on {executed.device}, beside {measured.reference}"
    rows = [
        [str(step + 1), f"{sigma:.4g}", *(f"{stage.latents[step]:.2e}" for stage in stages)]
        for step, sigma in enumerate(stages[0].sigmas)
    ]
    names = [f"{stage.stage}, relative L2" for stage in stages]
    ends = [
        [
            stage.stage,
            "yes" if equal(stage) else "no",
            "-" if stage.masks_iou is None else f"{stage.masks_iou:.5f}",
            f"{stage.frames_mean:.4f}",
            str(stage.frames_max),
        ]
        for stage in stages
    ]
    last = ["stage", "bit for bit equal", "masks IoU", "frames, mean of 255", "most"]
    return "\n\n".join([head, table(["step", "sigma", *names], rows, texts=0), table(last, ends)])
