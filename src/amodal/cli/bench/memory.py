"""`amodal bench memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from amodal.cli.console import BytesType, human_bytes, table, warn

from .options import backend_options, output_options, work_options


@click.command("memory")
@click.argument("bundle")
@click.option("--clips", type=click.IntRange(min=1), default=3, show_default=True, help="Clips to run.")
@click.option("--target-vram", type=BytesType(), help="Exit with 1 if more is taken (on a CPU: of the host's memory).")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG|SVG", help="Memory over time.")
@work_options()
@backend_options()
@output_options()
def command(bundle: str, **options: Any) -> None:
    """Memory over time in a process of its own, its peak, and the plan's prediction beside it.

    \b
    Examples:
      amodal bench memory default --picture memory.svg
      amodal bench memory bundle --backend tensorrt_rtx --memory sequential --target-vram 4GB
    """
    from amodal.bench.measures.memory import measure_memory
    from amodal.bench.report.memory import check_picture, save_memory
    from amodal.runtime.families import Bundle

    from .output import emit, execution_from, hold_to_targets, noting, work_from

    opened = Bundle(bundle)
    if options["picture"] is not None:
        check_picture(options["picture"])
    with noting("memory", options["as_json"]):
        measured = measure_memory(bundle, work_from(opened, options), execution_from(options), clips=options["clips"])
    emit(opened, measured, options, lambda: text(measured))
    if options["picture"] is not None:
        save_memory(measured, options["picture"])
    warn(measured.warnings)
    hold_to_targets([measured], options)


def text(measured: Any) -> str:
    """The tables of a memory measurement."""
    rows = [["host, peak", human_bytes(measured.host_peak)], ["host, before", human_bytes(measured.host_before)]]
    rows += [[f"GPU, {name}", human_bytes(max(line.bytes))] for name, line in measured.device.items() if line.bytes]
    rows += [[name, human_bytes(count)] for name, count in measured.allocators.items()]
    if measured.planned:
        rows.append(["planned, peak", human_bytes(max(measured.planned.values()))])
    peaks: dict[str, int] = {}
    for phase in measured.phases:
        inside = [
            count
            for at, count in zip(measured.host.seconds, measured.host.bytes, strict=True)
            if phase.begin <= at <= phase.end
        ]
        if inside:
            peaks[phase.name] = max(peaks.get(phase.name, 0), *inside)
    phases = [[name, human_bytes(count)] for name, count in peaks.items()]
    return f"{table(['memory', 'bytes'], rows)}\n\n{table(['phase', 'host, highest'], phases)}"
