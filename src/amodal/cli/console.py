"""What the commands share: types of options, and printing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .sentences import with_options

if TYPE_CHECKING:
    from amodal.runtime.bundle.manifest import ComponentEntry

_T = TypeVar("_T")


class Parsed(click.ParamType):  # type: ignore[type-arg]  # no subscript before click 8.5
    """An option's type: text that `parse` turns into a value.

    Args:
        name: shown in --help.
        parse: raises ValueError for text that it does not accept.
        expected: ends the error message that begins with that text; None for the message of the ValueError.
    """

    def __init__(self, name: str, parse: Callable[[str], Any], expected: str | None = None) -> None:
        self.name = name
        self._parse, self._expected = parse, expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{value!r} {self._expected}" if self._expected else str(error), param, ctx)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text)
    if not found:
        raise ValueError
    return int(found[1]), int(found[2])


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    return float(low), float(high if colon else low)


def _share(text: str) -> float:
    share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    if not 0 <= share < 1:
        raise ValueError
    return share


def _bytes(text: str) -> int:
    from amodal.runtime.memory.plan import parse_bytes

    return parse_bytes(text)


def _moment(text: str) -> Any:
    from amodal.runtime.files.trimming import Moment

    return Moment.parse(text)


SIZE = Parsed("HxW", _size, "is not a size; expected HEIGHTxWIDTH in pixels, for instance 256x512.")
"""(height, width)."""
RANGE = Parsed("MIN:MAX", _range, "is not a range; expected MIN:MAX or one number, for instance 1.5:1.5.")
NAMES = Parsed("NAMES", lambda text: tuple(name.strip() for name in text.split(",") if name.strip()))
SHARE = Parsed("PERCENT", _share, "is not a share; expected 0% to below 100%, for instance 5% or 0.05.")
"""As a float in [0, 1)."""
BYTES = Parsed("SIZE", _bytes)
MOMENT = Parsed("N|Ns", _moment, "is no moment; expected a number of frames, or of seconds such as 1.5s.")
FPS = Parsed("N|auto", lambda text: text if text == "auto" else float(text), "is neither a number nor auto.")


def _object(text: str) -> int | str:
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,17}", text) else text


def _objects(text: str) -> str | tuple[int | str, ...]:
    if text.strip() == "all":
        return "all"
    names = tuple(_object(name.strip()) for name in text.split(",") if name.strip())
    if not names:
        raise ValueError
    return names


OBJECT = Parsed("ID", _object)
"""As a number where it reads as one, else as text."""
OBJECTS = Parsed("all|ID,ID", _objects, "names no object; expected all, or ids such as 1,2,7.")
"""`all`, or ids as `OBJECT`."""


def settings_from(kind: type[_T], options: Mapping[str, Any], **others: Any) -> _T:
    """Creates a dataclass from the options that are named like its fields; `others` take precedence."""
    names = {field.name for field in fields(kind)} & options.keys()  # type: ignore[arg-type]
    return kind(**{name: options[name] for name in names} | others)


def in_options(text: str) -> str:
    """Replaces Python arguments between backticks in a message by the options of the command that runs."""
    context = click.get_current_context(silent=True)
    return with_options(text, context.command.params if context else ())


def warn(messages: Sequence[str]) -> None:
    """Prints each warning to standard error as one line, in the words of the command that runs."""
    for message in messages:
        click.echo(f"Warning: {in_options(message)}", err=True)


def print_json(value: Any) -> None:
    """Prints a value to standard output as JSON."""
    from amodal.runtime.files.results import json_text

    click.echo(json.dumps(json.loads(json_text(value)), indent=2))  # in ASCII, whatever the locale


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Formats a table of text; all columns after the first `texts` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def footnoted(rows: Sequence[Sequence[str]], longest: int = 0) -> tuple[list[list[str]], list[str]]:
    """Moves texts of the last column with more than `longest` characters to notes; returns the rows and the notes."""
    numbers: dict[str, str] = {}
    for row in rows:
        if len(row[-1]) > longest:
            numbers.setdefault(row[-1], f"[{len(numbers) + 1}]")
    return [[*row[:-1], numbers.get(row[-1], row[-1])] for row in rows], [f"{n} {text}." for text, n in numbers.items()]


def human_bytes(count: int) -> str:
    """Formats a number of bytes in decimal units: GB = 1e9."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}" if scale == 1e9 else f"{count / scale:.1f} {unit}"
    return f"{count} B"


def component_table(entries: Mapping[str, ComponentEntry], **more: Sequence[str]) -> str:
    """Formats a bundle's components and their total; `more` columns have a cell for each component and the total."""

    def cells(parameters: int, size: int) -> list[str]:
        return [f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k", human_bytes(size)]

    rows = [
        [key, e.precision, *cells(e.parameters, e.bytes), "-" if e.difference is None else f"{e.difference:.1e}"]
        for key, e in entries.items()
    ]
    totals = cells(sum(e.parameters for e in entries.values()), sum(e.bytes for e in entries.values()))
    rows.append(["total", "", *totals, ""])
    head = ["component", "arithmetic", "parameters", "size", "difference", *more]
    return table(head, [[*row, *extra] for row, extra in zip(rows, zip(*more.values(), strict=True), strict=True)])
