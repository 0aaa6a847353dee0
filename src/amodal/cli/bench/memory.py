"""`amodal bench memory`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import BYTES, human_bytes, table, warn
from amodal.cli.options import COUNT, bundle_argument, execution_options

from .options import output_options, work_options

if TYPE_CHECKING:
    from amodal.bench.schema import Memory


@click.command("memory")
@bundle_argument
@click.option("--clips", type=COUNT, default=3, help="Clips to run.")
@click.option("--target-vram", type=BYTES, help="Exit with 1 if more memory is used (on a CPU: host memory).")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG|SVG", help="Draw memory over time."
)
@work_options
@execution_options()
@output_options
def command(bundle: str, **options: Any) -> None:
    """Measure memory over time in a process of its own, beside the plan's prediction.

    \b
    Examples:
      amodal bench memory default --picture memory.svg
      amodal bench memory bundle --backend tensorrt_rtx \\
          --memory sequential --target-vram 4GB
    """
    from amodal.bench.measures.memory import measure_memory
    from amodal.bench.report.plots import check_picture, save_memory
    from amodal.cli.progress import Watcher
    from amodal.runtime.families import Bundle

    from .output import check_targets, emit, execution_from, work_from

    opened = Bundle(bundle)
    if options["picture"] is not None:
        check_picture(options["picture"])
    with Watcher(options["as_json"]).doing("memory"):
        measured = measure_memory(bundle, work_from(opened, options), execution_from(options), clips=options["clips"])
    emit(opened, measured, options, [_phases(measured)])
    if options["picture"] is not None:
        save_memory(measured, options["picture"])
    warn(measured.warnings)
    check_targets([measured], options)


def _phases(measured: Memory) -> str:
    peaks: dict[str, int] = {}
    samples = list(zip(measured.host.seconds, measured.host.bytes, strict=True))
    for phase in measured.phases:
        inside = [count for seconds, count in samples if phase.begin <= seconds <= phase.end]
        if inside:
            peaks[phase.name] = max(peaks.get(phase.name, 0), *inside)
    return table(["phase", "host, highest"], [[name, human_bytes(count)] for name, count in peaks.items()])
