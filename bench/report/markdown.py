"""The report as Markdown: the same tables, without plots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..wording import without_controls
from .document import Document, Section, Table


def render_markdown(document: Document) -> str:
    """The summary, ending in a newline; tables are those of GitHub's Markdown."""
    return "\n".join(_lines(document)) + "\n"


def _escaped(text: str) -> str:
    """Text that says what it says, wherever it came from: no markup, no HTML, one line."""
    line = " ".join(without_controls(text).split())
    line = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line.replace("&", "&amp;"))
    return line.replace("<", "&lt;").replace(">", "&gt;")


def _lines(document: Document) -> Iterator[str]:
    yield f"# {_escaped(document.title)}"
    if not document.finished:
        yield "\n**Unfinished: the suite was interrupted; this is what it had until then.**"
    yield ""
    yield from (f"- {name}: {_escaped(value)}" for name, value in document.facts)
    if document.cards:
        yield "\n## At a glance\n"
        yield from (
            f"- {card.title}: **{_escaped(card.value)}** ({card.basis}; {_escaped(card.detail)})"
            for card in document.cards
        )
    for text in document.context:
        yield f"\n{_escaped(text)}"
    for section in document.sections:
        yield from _section(section)
    if document.skipped or document.missing:
        yield "\n## Not measured\n"
    for what, reason, remedy in document.skipped:
        yield f"- {_escaped(what)}: {_escaped(reason)}" + (f" Would change that: {_escaped(remedy)}" if remedy else "")
    if document.missing:
        yield f"- Not in this file: {', '.join(document.missing)}."


def _section(section: Section) -> Iterator[str]:
    yield f"\n## {section.title}\n\n{_escaped(section.lead)}"
    if section.warnings:
        yield ""
    yield from (f"- Warning: {_escaped(text)}" for text in section.warnings)
    for table in section.tables:
        yield f"\n{table.basis.capitalize()}. {_escaped(table.caption)}\n"
        yield from _table(table)
    if section.notes:
        yield ""
    yield from (f"- {_escaped(text)}" for text in section.notes)


def _table(table: Table) -> Iterator[str]:
    yield _row(table.head)
    yield "|" + "|".join(":--" if i < table.texts else "--:" for i in range(len(table.head))) + "|"
    yield from map(_row, table.rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"
