"""Contents of the report, independent of the format it is rendered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..schema import Results
from .drawing import Canvas

Basis: TypeAlias = Literal["measured", "predicted", "counted"]
"""`counted` figures are read from graphs that were not run."""


@dataclass(frozen=True)
class Table:
    """Cells as text, with units in cells or heads. The first `texts` columns are words; the first one names the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    basis: Basis = "measured"
    texts: int = 1


def tabulate(caption: str, rows: Sequence[Mapping[str, str]], basis: Basis = "measured", texts: int = 1) -> Table:
    """A table of rows that map column heads to cells; all rows have the same heads."""
    head = list(rows[0]) if rows else []
    return Table(caption, head, [list(row.values()) for row in rows], basis, texts)


@dataclass(frozen=True)
class Figure:
    """A figure, with `alt` for readers who cannot see it. It is drawn on a matplotlib figure when it is rendered."""

    title: str
    caption: str
    alt: str
    plot: Callable[[Canvas], None]
    basis: Basis = "measured"


Card: TypeAlias = tuple[str, str, str]
Content: TypeAlias = tuple[Sequence[Table], Sequence[Figure], Sequence[str], Sequence[str]]
"""Tables, figures, notes and warnings of a section."""


@dataclass(frozen=True)
class Section:
    """All measurements of one kind; `lead` is its first sentence."""

    kind: str
    lead: str
    tables: Sequence[Table]
    figures: Sequence[Figure]
    notes: Sequence[str]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        facts: names and values. cards: headline figures: title, value, detail.
        missing: kinds of measurement that the results file does not contain.
    """

    results: Results
    facts: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    context: Sequence[str]
    sections: Sequence[Section]
    missing: Sequence[str]
