"""`amodal bench quality`."""

from __future__ import annotations

import statistics
from typing import Any

import click

from amodal.cli.console import table

from .options import backend_options, output_options


@click.command("quality")
@click.argument("bundle")
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=10, show_default=True, help="Unseen scenes.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--preset", "names", multiple=True, metavar="NAME", help="Only these (repeat). Default: all.")
@backend_options()
@output_options()
def command(bundle: str, **options: Any) -> None:
    """What each preset (steps, guidance, churn) takes and gives: mIoU over scenes whose truth is known, and time.

    Meant for the default model, which was trained on such scenes; others have not seen their like.

    \b
    Examples:
      amodal bench quality default
      amodal bench quality default -n 40 --workers 2 --threads 1
      amodal bench quality default --preset fast --preset reference --json
    """
    from amodal.bench.measures.presets import PRESETS, measure_quality
    from amodal.runtime.families import Bundle

    from .output import emit, execution_from

    opened = Bundle(bundle)
    measured = measure_quality(
        bundle,
        execution_from(options),
        scenes=options["scenes"],
        workers=options["workers"],
        names=options["names"] or tuple(PRESETS),
    )
    emit(opened, measured, options, lambda: text(measured))


def text(measured: Any) -> str:
    """The table of a quality measurement."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [
        [
            name,
            "",
            percent(measured.baselines.get(f"{name} mIoU")),
            percent(measured.baselines.get(f"{name} mIoU_occ")),
            "",
            "",
        ]
        for name in ("modal", "convex")
    ]
    for preset in measured.presets:
        work = preset.work
        how = f"{work.steps} steps, guidance {work.guidance:g}" + (f", churn {work.churn:g}" if work.churn else "")
        rows.append(
            [
                preset.name,
                how,
                percent(preset.miou),
                percent(preset.miou_occ),
                percent(preset.flicker),
                f"{statistics.median(preset.seconds):.3f}",
            ]
        )
    head = ["preset", "settings", "mIoU %", "mIoU_occ %", "flicker %", "median s"]
    return f"{measured.scenes} scenes, strict mode, segment stage\n\n{table(head, rows, texts=2)}"
