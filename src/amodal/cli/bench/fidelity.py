"""`amodal bench fidelity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import table
from amodal.cli.options import bundle_argument, checkpoint_options, clip_options

if TYPE_CHECKING:
    from amodal.bench.schema import Fidelity


@click.command("fidelity")
@bundle_argument
@click.option(
    "--against",
    type=click.Choice(["twin", "diffusers"]),
    default="twin",
    help="Reference: the stored weights, all in float32 on the CPU (twin); or the checkpoint's weights in torch, with "
    "the reference pipeline (diffusers).",
)
@checkpoint_options()
@clip_options
def command(**options: Any) -> None:
    """Compare latents, frames and masks with a run in float32, step by step.

    Both runs get the same scene and the same noise. Stage complete gets the true masks, so that it does not depend on
    stage segment. `amodal verify` tells whether the differences are small enough.

    \b
    Examples:
      amodal bench fidelity default
      amodal bench fidelity bundle --backend tensorrt_rtx -o fidelity.json
      amodal bench fidelity bundle --against diffusers \\
          --segment ckpt/ --complete ckpt2/
    """
    from amodal.bench.measures.fidelity import measure_fidelity

    from .output import emit, measure

    measured = measure("fidelity", measure_fidelity, options, against=options["against"])
    emit(measured, options, _steps(measured))


def _steps(measured: Fidelity) -> list[str]:
    from amodal.bench.measures.fidelity import equal

    stages = measured.stages
    rows = [
        [str(step + 1), f"{sigma:.4g}", *(f"{stage.latents[step]:.2e}" for stage in stages)]
        for step, sigma in enumerate(stages[0].sigmas)
    ]
    names = [f"{stage.stage}, relative L2" for stage in stages]
    verdicts = [f"{s.stage}: {'bit for bit equal' if equal(s) else 'not bit for bit equal'}" for s in stages]
    return [table(["step", "sigma", *names], rows, texts=0), "\n".join(verdicts)]
