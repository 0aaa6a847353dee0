"""`amodal bench report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("results", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder to write to. Default: where the results file is."
)
def command(results: str, out: Path | None) -> None:
    """The report again, from a results file: report.html and summary.md.

    RESULTS is a results file of `amodal bench`, or a folder with a results.json. The page needs no network and no
    other file; plots are inside it.

    \b
    Examples:
      amodal bench report report/results.json
      amodal bench report results.json -o report
    """
    from amodal.bench.report import write_report
    from amodal.bench.schema import read_results

    found, place = read_results(results), Path(results)
    folder = out or (place if place.is_dir() else place.parent)
    for file in write_report(found, folder):
        click.echo(file)
