"""`amodal bench quality`."""

from __future__ import annotations

from typing import Any

import click

from amodal.cli.options import COUNT, bundle_argument, execution_options, output_options


@click.command("quality")
@bundle_argument
@click.option("-n", "--scenes", type=COUNT, default=10, help="Number of unseen scenes.")
@click.option("--workers", type=COUNT, default=1, help="Number of processes.")
@click.option("--preset", "names", multiple=True, metavar="NAME", help="Only this preset (repeatable). Default: all.")
@execution_options()
@output_options
def command(**options: Any) -> None:
    """Measure the quality and time of each preset (steps, guidance, churn) on drawn scenes.

    The truth of the scenes is known. The default model was trained on such scenes; other models have never seen any.

    \b
    Examples:
      amodal bench quality default
      amodal bench quality default -n 40 --workers 2 --threads 1
      amodal bench quality default --preset fast --preset reference --json
    """
    from amodal.bench.measures.presets import PRESETS, measure_quality

    from .output import emit, execution_from

    settings = {"scenes": options["scenes"], "workers": options["workers"], "names": options["names"] or tuple(PRESETS)}
    emit(measure_quality(options["bundle"], execution_from(options), **settings), options)
