"""The report: one page that opens from disk without a network, and a summary in Markdown.

`overview.document` turns a results file into sections of tables and figures, a module per kind of measurement;
`page` and `markdown` write them down.
"""

from __future__ import annotations

from pathlib import Path

from amodal.runtime.paths import PathLike

from ..running.files import write_whole
from ..schema import Results
from .drawing import require_matplotlib
from .markdown import render_markdown
from .overview import document
from .page import render_page

PAGE, SUMMARY = "report.html", "summary.md"

__all__ = ["PAGE", "SUMMARY", "render_markdown", "render_page", "write_report"]


def write_report(results: Results, folder: PathLike) -> list[Path]:
    """Writes `report.html` and `summary.md` into a folder, which is made if it is not there; replaces what is there.

    Returns:
        The two files.

    Raises:
        MissingDependencyError: matplotlib or jinja2 is not installed.
        OutputError: they cannot be written.
    """
    require_matplotlib()
    found, place = document(results), Path(folder)
    texts = {PAGE: render_page(found), SUMMARY: render_markdown(found)}
    files = []
    for name, text in texts.items():
        write_whole(place / name, text)
        files.append(place / name)
    return files
