"""The report: one page that opens from disk without a network, and a summary in Markdown.

`overview.document` turns a results file into tables and figures, with a module per kind of measurement, and the
templates `report.html.j2` and `summary.md.j2` render them.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from amodal.runtime.paths import PathLike

from ..running.files import write_whole
from ..schema import Results
from ..wording import without_controls
from .document import Document
from .drawing import SERIES, draw_svg, require_libraries
from .overview import document

_LIGHTER = ("#7fb2ea", "#f0ab62", "#6fcaa0", "#bd9ce2", "#ec8c94", "#68cbda", "#cdc266", "#a8a8b3")
"""The colours of the series on a dark page, in the order of `SERIES`."""


def write_report(results: Results, folder: PathLike) -> list[Path]:
    """Writes `report.html` and `summary.md` into a folder, which is created if needed, and returns the two files.

    Raises:
        MissingDependencyError: matplotlib or jinja2 is not installed.
        OutputError: they cannot be written.
    """
    require_libraries("matplotlib", "jinja2")
    contents, written = document(results), [Path(folder, name) for name in ("report.html", "summary.md")]
    for file in written:
        write_whole(file, _render(contents, f"{file.name}.j2"))
    return written


def _render(contents: Document, template: str) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    text = files(__package__).joinpath(template).read_text("utf-8")
    values = {"document": contents, "results": contents.results, "light": SERIES, "dark": _LIGHTER}
    return without_controls(environment.from_string(text).render(values, draw_svg=draw_svg))


def _plain(text: str) -> str:
    """Markdown that shows the text as it is: no markup, no HTML, one line."""
    line = " ".join(without_controls(text).split())
    line = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line.replace("&", "&amp;"))
    return line.replace("<", "&lt;").replace(">", "&gt;")
