"""`amodal bench roofline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import human_bytes, table, warn

from .options import backend_options, output_options, work_options

if TYPE_CHECKING:
    from amodal.bench.schema import Prediction, Roofline


@click.command("roofline")
@click.argument("bundle", type=click.Path())
@work_options()
@backend_options()
@click.option("--clips", type=click.IntRange(min=1), default=2, show_default=True, help="Clips to run, warm.")
@click.option("--no-run", is_flag=True, help="Run no clip: count, measure this machine's ceilings, predict.")
@click.option("--gpu", "gpu", metavar="NAME", help="Predict for this GPU alone, for instance 4090.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the published rate that a run is likely to reach.  [default: 0.47, others' best with this U-Net]",
)
@output_options()
def command(bundle: str, **options: Any) -> None:
    """How near to what is possible a bundle runs here, and what GPUs would take at the least.

    Counts floating-point operations and bytes of every component from its graph, measures what this machine reaches,
    runs clips, and predicts the least seconds per frame of GPUs from their published rates.

    \b
    Examples:
      amodal bench roofline default
      amodal bench roofline bundle --no-run               (counts and predictions, in seconds)
      amodal bench roofline bundle --no-run --gpu 4090 --stage segment
      amodal bench roofline bundle --backend tensorrt_rtx -o roofline.json
    """
    from amodal.bench.roofline.gpus import GPUS, find_gpu
    from amodal.bench.roofline.measure import LIKELY_SHARE, measure_roofline
    from amodal.bench.running.clips import running
    from amodal.runtime.families import Bundle

    from .output import emit, execution_from, noting, work_from

    opened = Bundle(bundle)
    work = work_from(opened, options)
    gpus = GPUS if options["gpu"] is None else (find_gpu(options["gpu"]),)
    execution = execution_from(options)
    ready: AbstractContextManager[Any] = nullcontext() if options["no_run"] else running(bundle, work, execution)
    with noting("roofline", options["as_json"]) as progress, ready as runner:
        measured = measure_roofline(
            opened,
            work,
            execution,
            runner=runner,
            clips=options["clips"],
            gpus=gpus,
            likely_share=options["share"] or LIKELY_SHARE,
            progress=progress,
        )
    emit(opened, measured, options, lambda: text_of(measured, bundle))
    warn(measured.warnings)


def text_of(measured: Roofline, bundle: str) -> str:
    """The tables of a roofline, each with what its figures are: counted, measured or predicted."""
    from amodal.bench.roofline.measure import PAPER_SECONDS, floor_here, share_in_paper

    work, ceilings = measured.work, measured.ceilings
    height, width = work.size
    clip = f"{work.frames} frames of {height}x{width}, {work.steps} steps, guidance {work.guidance:g}"
    lines = [f"{bundle}, {' and '.join(work.stages)}: {clip}", ""]
    heading = "Counted from the graphs, for one clip, operations by kind"
    if measured.executed is not None:
        heading += f"; seconds measured here, with {measured.executed.backend} {measured.executed.version}"
    lines += [f"{heading}:", _components(measured), ""]
    floor = floor_here(measured.components, ceilings, work)
    lines += [
        f"Measured here: {_flops(ceilings.rate)}FLOP/s in products ({ceilings.library}, {ceilings.precision}, side "
        f"{ceilings.side}), {human_bytes(round(ceilings.copies))}/s in copies.",
        f"This machine's floor by these: {_seconds(floor)} s/frame.",
    ]
    if measured.executed is not None:
        reached = sum(cost.seconds or 0.0 for cost in measured.components) / work.frames
        lines[-1] += f" Reached, in the components: {_seconds(reached)} s/frame."
    if measured.predictions:
        lines += ["", *_predicted(measured)]
    if shares := share_in_paper(measured):
        said = ", ".join(f"{share:.0%} ({stages})" for stages, share in shares.items())
        lines += [
            "",
            f"The paper reports {PAPER_SECONDS:g} s/frame for such a clip on an RTX 3090, and not for which stages. Of "
            f"the card's published rate, sums in FP32, that is {said}.",
        ]
    return "\n".join(lines)


def _components(measured: Roofline) -> str:
    ran = measured.executed is not None
    kinds = ("matmul", "attention", "convolution", "other")
    head = ["component", "arithmetic", "calls", *kinds, "weights", "unfused traffic"]
    rows = []
    for cost in measured.components:
        row = [cost.component, cost.precision, str(cost.calls), *(_flops(cost.flops[kind]) for kind in kinds)]
        row += [human_bytes(round(cost.weights)), human_bytes(round(cost.weights + cost.activations))]
        if ran:
            share = cost.share_of(measured.ceilings)
            row += ["-" if cost.seconds is None else _seconds(cost.seconds), "-" if share is None else f"{share:.0%}"]
        rows.append(row)
    total = {kind: sum(cost.flops[kind] for cost in measured.components) for kind in kinds}
    calls = sum(cost.calls for cost in measured.components)
    row = ["total", "", str(calls), *(_flops(total[kind]) for kind in kinds)]
    row += [human_bytes(round(sum(cost.weights for cost in measured.components)))]
    row += [human_bytes(round(sum(cost.weights + cost.activations for cost in measured.components)))]
    if ran:
        head += ["seconds", "of the ceiling"]
        row += [_seconds(sum(cost.seconds or 0.0 for cost in measured.components)), ""]
    return table(head, [*rows, row], 2)


def _predicted(measured: Roofline) -> Iterator[str]:
    first = measured.predictions[0]
    yield (
        f"Predicted from published dense FP16 rates, not measured; likely: at {first.likely_share:.0%} of the rates. "
        "Nothing outside the components is in it."
    )
    planned = any(prediction.planned is not None for prediction in measured.predictions)
    head = ["GPU", "sums in", "TFLOPS", "GB/s", "VRAM GB", "floor, s/frame", "likely, s/frame"]
    rows = [_prediction(prediction, planned) for prediction in measured.predictions]
    yield table([*head, "memory planned", "fits"] if planned else head, rows, 2)
    if planned:
        yield "Memory is planned from the records of the engines that were built; the CUDA context comes on top."
    else:
        yield "Whether it fits is told once engines are built (`amodal build`); their records say what a run takes."
    if any(cost.precision == "fp32" for cost in measured.components if cost.component.endswith("/unet")):
        yield "This bundle computes in float32, TF32 on these GPUs; exported with --precision fp16, it takes half."
    if len({prediction.gpu for prediction in measured.predictions}) == 1:
        yield f"Source: {first.source}."


def _prediction(prediction: Prediction, planned: bool) -> list[str]:
    row = [
        prediction.gpu,
        prediction.accumulation,
        f"{prediction.rate / 1e12:.1f}",
        f"{prediction.bandwidth / 1e9:g}",
        f"{prediction.vram / 1e9:g}",
        _seconds(prediction.floor),
        _seconds(prediction.likely),
    ]
    if planned and prediction.planned is not None:
        row += [f"{human_bytes(prediction.planned)} ({prediction.way})", "yes" if prediction.fits else "no"]
    return row


def _flops(count: float) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:.0f} "


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}"
