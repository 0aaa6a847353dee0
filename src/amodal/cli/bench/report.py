"""`amodal bench report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("results", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder to write to. Default: that of the results file."
)
def command(results: str, out: Path | None) -> None:
    """Write report.html and summary.md of a results file.

    RESULTS is a results file of `amodal bench`, or a folder with a results.json. The page contains its plots; it needs
    no network and no other file.

    \b
    Examples:
      amodal bench report report/results.json
      amodal bench report results.json -o report
    """
    from amodal.bench.report import write_report
    from amodal.bench.schema import read_results

    place = Path(results)
    for file in write_report(read_results(results), out or (place if place.is_dir() else place.parent)):
        click.echo(file)
