"""What the report is made of; the page and the Markdown summary are two ways to write it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Basis: TypeAlias = Literal["measured", "predicted", "counted"]
"""`counted` is read off graphs, without running them."""


@dataclass(frozen=True)
class Table:
    """Cells as text, units in the cells or the head.

    Attributes:
        texts: how many columns are words, aligned to the left; the first names its row.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    basis: Basis = "measured"
    texts: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot, drawn when it is asked for.

    Attributes:
        draw: gives an `<svg>` element.
        alt: what a reader who does not see it should know.
    """

    title: str
    caption: str
    alt: str
    draw: Callable[[], str]
    basis: Basis = "measured"


@dataclass(frozen=True)
class Section:
    """Everything about one kind of measurement."""

    kind: str
    title: str
    lead: str
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    title: str
    value: str
    detail: str
    basis: Basis = "measured"


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        facts: names and values: bundle, machine, versions, date.
        skipped: what, why, and what would change that.
    """

    title: str
    finished: bool
    facts: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    context: Sequence[str]
    sections: Sequence[Section]
    skipped: Sequence[tuple[str, str, str]] = field(default=())
    missing: Sequence[str] = ()
