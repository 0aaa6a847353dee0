"""`amodal bench latency`."""

from __future__ import annotations

from typing import Any

import click

from amodal.cli.console import table, warn

from .options import ABOVE_ZERO, backend_options, output_options, work_options


@click.command("latency")
@click.argument("bundle")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Clips that count.")
@click.option("--warm-up", type=click.IntRange(min=1), default=2, show_default=True, help="Clips before those.")
@click.option("--cold/--no-cold", default=True, show_default=True, help="Also start once in a new process.")
@click.option("--target-spf", type=ABOVE_ZERO, metavar="S", help="Exit with 1 if the median takes more a frame.")
@work_options()
@backend_options()
@output_options()
def command(bundle: str, **options: Any) -> None:
    """Seconds per frame and per clip, by component and denoising step; cold start apart.

    A clip is both stages (or --stage) from raw arrays to masks and RGB on the host, depth included where the bundle has
    the component for it.

    \b
    Examples:
      amodal bench latency default
      amodal bench latency bundle --stage segment --steps 10 --repeats 30
      amodal bench latency bundle --backend tensorrt_rtx --target-spf 0.95 -o latency.json
    """
    from amodal.bench.measures.latency import measure_latency
    from amodal.runtime.families import Bundle

    from .output import emit, execution_from, hold_to_targets, noting, work_from

    opened = Bundle(bundle)
    with noting("latency", options["as_json"]) as progress:
        measured = measure_latency(
            bundle,
            work_from(opened, options),
            execution_from(options),
            repeats=options["repeats"],
            warm_up=options["warm_up"],
            cold=options["cold"],
            progress=progress,
        )
    emit(opened, measured, options, lambda: text(measured))
    warn(measured.warnings)
    hold_to_targets([measured], options)


def text(measured: Any) -> str:
    """The tables of a latency measurement."""
    from statistics import median

    from amodal.bench.statistics import PERCENTILES

    clips, work = [clip.seconds for clip in measured.clips], measured.work
    spf = [seconds / work.frames for seconds in clips]
    rows = [_percentiles("per clip", clips), _percentiles("per frame", spf)]
    height, width = work.size
    executed = measured.executed
    head = (
        f"{' + '.join(work.stages)}, {work.frames} frames of {height}x{width}, {work.steps} steps, guidance "
        f"{work.guidance:g}; {executed.backend} {executed.version} on {executed.device}, {executed.memory}; "
        f"{len(clips)} clips, {work.frames / median(clips):.2f} frames per second"
    )
    names = list(dict.fromkeys(name for clip in measured.clips for name in clip.parts))
    total = median(clips)
    parts = [(name, median([clip.parts.get(name, 0.0) for clip in measured.clips])) for name in names]
    parts.append(("outside the networks", median([clip.outside for clip in measured.clips])))
    parts = [(name, seconds) for name, seconds in parts if seconds > 0]
    lines = [[name, f"{seconds:.4f}", f"{100 * seconds / total:.1f} %"] for name, seconds in parts]
    taken = {stage: [s for clip in measured.clips for s in clip.steps[stage]] for stage in work.stages}
    steps = [[stage, f"{median(seconds):.4f}"] for stage, seconds in taken.items() if seconds]
    blocks = [
        head,
        table(["seconds", *(f"p{percent}" for percent in PERCENTILES), "least", "most"], rows),
        table(["part", "median s", "share"], lines),
        *([table(["denoising step", "median s"], steps)] if steps else []),
    ]
    if measured.cold:
        blocks.append(table(["once", "s"], [[name, f"{seconds:.3f}"] for name, seconds in measured.cold.items()]))
    if measured.overhead is not None:
        blocks.append(f"Measuring took {100 * measured.overhead:.3f} % of a clip.")
    return "\n\n".join(blocks)


def _percentiles(name: str, samples: list[float]) -> list[str]:
    """A dash where there are too few samples for one."""
    from amodal.bench.statistics import PERCENTILES, summarise

    found = summarise(samples)
    assert found is not None
    shown = [found.percentiles[percent] for percent in PERCENTILES] + [found.minimum, found.maximum]
    return [name, *("-" if value is None else f"{value:.4f}" for value in shown)]
