"""`amodal bench roofline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.options import COUNT, bundle_argument, execution_options, output_options, work_options

if TYPE_CHECKING:
    from amodal.bench.schema import Roofline


@click.command("roofline")
@bundle_argument
@work_options
@execution_options()
@click.option("--clips", type=COUNT, default=2, help="Clips to run, after a warm-up.")
@click.option("--no-run", is_flag=True, help="Run no clip: count, measure this machine's ceilings, predict.")
@click.option("--gpu", metavar="NAME", help="Predict for this GPU only, for instance 4090.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the published rate that a run is likely to reach.  [default: 0.47, others' best with this U-Net]",
)
@output_options
def command(**options: Any) -> None:
    """Measure how close a bundle comes to this machine's limits, and predict the time on GPUs.

    Counts floating-point operations and bytes of each component from its graph, measures the rates that this machine
    reaches, runs clips, and predicts the least seconds per frame on GPUs from their published rates.

    \b
    Examples:
      amodal bench roofline default
      amodal bench roofline bundle --no-run     (counts and predictions; seconds)
      amodal bench roofline bundle --no-run --gpu 4090 --stage segment
      amodal bench roofline bundle --backend tensorrt_rtx -o roofline.json
    """
    from amodal.bench.roofline.gpus import GPUS, find_gpu
    from amodal.bench.roofline.measure import LIKELY_SHARE, measure_roofline
    from amodal.bench.running.clips import running
    from amodal.runtime.families import Bundle

    from .output import emit, measure

    settings = {
        "clips": options["clips"],
        "gpus": GPUS if options["gpu"] is None else (find_gpu(options["gpu"]),),
        "likely_share": options["share"] or LIKELY_SHARE,
    }

    def run(bundle: str, *how: Any, **settings: Any) -> Roofline:
        with nullcontext() if options["no_run"] else running(bundle, *how) as runner:
            return measure_roofline(Bundle(bundle), *how, runner=runner, **settings)

    measured = measure("roofline", run, options, **settings)
    emit(measured, options, ["\n".join(_conclusions(measured))])


def _conclusions(measured: Roofline) -> Iterator[str]:
    from amodal.bench.roofline.measure import PAPER_SECONDS, floor_here, share_in_paper

    work, components = measured.work, measured.components
    yield f"This machine's floor by its ceilings: {floor_here(components, measured.ceilings, work):.3g} s/frame."
    if measured.executed is not None:
        reached = sum(cost.seconds or 0.0 for cost in components) / work.frames
        yield f"Measured in the components: {reached:.3g} s/frame."
    if measured.predictions:
        yield "Predictions leave out everything outside the components."
        if any(prediction.planned is not None for prediction in measured.predictions):
            yield "Memory is planned from the records of the engines that were built; the CUDA context adds to it."
        else:
            yield "Run `amodal build` to learn whether a run fits: the engines' records tell the memory it needs."
        if any(cost.precision == "fp32" for cost in components if cost.component.endswith("/unet")):
            yield "This bundle computes in float32, TF32 on these GPUs; exported with --precision fp16, it takes half."
    if shares := share_in_paper(measured):
        listed = ", ".join(f"{share:.0%} ({stages})" for stages, share in shares.items())
        yield (
            f"The paper reports {PAPER_SECONDS:g} s/frame for such a clip on an RTX 3090, without naming the stages. "
            f"Of the card's published rate, with sums in FP32, that is {listed}."
        )
