"""`amodal bench memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import BYTES, human_bytes, table
from amodal.cli.options import COUNT, FILE, bundle_argument, clip_options

if TYPE_CHECKING:
    from amodal.bench.schema import Memory


@click.command("memory")
@bundle_argument
@click.option("--clips", type=COUNT, default=3, help="Clips to run.")
@click.option("--target-vram", type=BYTES, help="Exit with 1 if more memory is used (on a CPU: host memory).")
@click.option("--picture", type=FILE, metavar="PNG|SVG", help="Draw the memory over time.")
@clip_options
def command(**options: Any) -> None:
    """Measure memory over time in a process of its own, beside the plan's prediction.

    \b
    Examples:
      amodal bench memory default --picture memory.svg
      amodal bench memory bundle --backend tensorrt_rtx \\
          --memory sequential --target-vram 4GB
    """
    from amodal.bench.measures.memory import measure_memory
    from amodal.bench.report.memory import check_picture, save_memory

    from .output import emit, measure

    picture = options["picture"]
    if picture is not None:
        check_picture(picture)
    measured = measure("memory", lambda *args, progress: measure_memory(*args, clips=options["clips"]), options)
    try:
        emit(measured, options, [_phases(measured)])
    finally:
        if picture is not None:
            save_memory(measured, picture)


def _phases(measured: Memory) -> str:
    peaks: dict[str, int] = {}
    for phase in measured.phases:
        for seconds, count in zip(measured.host.seconds, measured.host.bytes, strict=True):
            if phase.begin <= seconds <= phase.end:
                peaks[phase.name] = max(peaks.get(phase.name, 0), count)
    return table(["phase", "host, highest"], [[name, human_bytes(count)] for name, count in peaks.items()])
