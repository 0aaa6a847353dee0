"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from importlib.resources import files

from amodal.runtime.errors import MissingDependencyError

from ..wording import without_controls
from .document import Document, Figure
from .drawing import SERIES, with_unique_ids

_BRIGHT = ("#7fb2ea", "#f0ab62", "#6fcaa0", "#bd9ce2", "#ec8c94", "#68cbda", "#cdc266", "#a8a8b3")
"""The series' colours on a dark page, in their order."""


def render_page(document: Document) -> str:
    """The whole page. Everything that came from a file is escaped.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup, escape
    except ImportError as error:
        raise MissingDependencyError(
            f'The report needs jinja2, which cannot be imported ({error}); `pip install "amodal[bench]"`.'
        ) from error
    count = 0

    def drawn(figure: Figure) -> Markup:
        nonlocal count
        count += 1
        # matplotlib has escaped all text within; the page may not do so again.
        svg = with_unique_ids(figure.draw(), f"f{count}-")
        return Markup("<svg") + Markup(' role="img" aria-label="{}" ').format(figure.alt) + Markup(svg[len("<svg") :])

    def breakable(text: str) -> Markup:
        return Markup(escape(text).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>")))

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["breakable"] = breakable
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    return without_controls(template.render(document=document, drawn=drawn, light=SERIES, dark=_BRIGHT))
