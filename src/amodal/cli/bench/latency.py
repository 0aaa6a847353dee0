"""`amodal bench latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import table
from amodal.cli.options import ABOVE_ZERO, COUNT, bundle_argument, clip_options

if TYPE_CHECKING:
    from amodal.bench.schema import Latency


@click.command("latency")
@bundle_argument
@click.option("--repeats", type=COUNT, default=10, help="Clips to measure.")
@click.option("--warm-up", type=COUNT, default=2, help="Clips to run before these.")
@click.option("--cold/--no-cold", default=True, help="Also measure one start in a new process.")
@click.option("--target-spf", type=ABOVE_ZERO, metavar="S", help="Exit with 1 if a frame takes more seconds (median).")
@clip_options
def command(**options: Any) -> None:
    """Measure seconds per frame and clip, by component and denoising step, and the cold start.

    A clip is both stages (or --stage) from raw arrays to masks and RGB on the host, including depth if the bundle has
    the component for it.

    \b
    Examples:
      amodal bench latency default
      amodal bench latency bundle --stage segment --steps 10 --repeats 30
      amodal bench latency bundle --backend tensorrt_rtx \\
          --target-spf 0.95 -o latency.json
    """
    from amodal.bench.measures.latency import measure_latency

    from .output import emit, measure

    settings = {name: options[name] for name in ("repeats", "warm_up", "cold")}
    measured = measure("latency", measure_latency, options, **settings)
    emit(measured, options, [_steps(measured)])


def _steps(measured: Latency) -> str:
    from statistics import median

    rows = [["fastest clip", f"{min(clip.seconds for clip in measured.clips):.4f}"]]
    for stage in measured.work.stages:
        if seconds := [s for clip in measured.clips for s in clip.steps[stage]]:
            rows.append([f"denoising step of {stage}, median", f"{median(seconds):.4f}"])
    return table(["", "seconds"], rows)
