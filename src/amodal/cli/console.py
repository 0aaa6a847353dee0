"""What the commands share: option types, and how things are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import click

from .sentences import with_options


class SizeType(click.ParamType):  # type: ignore[type-arg]  # no subscript before click 8.5
    """`256x512`: height and width."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """See click."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", str(value))
        if not found:
            self.fail(f"{value!r} is no size; expected HEIGHTxWIDTH in pixels, for instance 256x512.", param, ctx)
        return int(found[1]), int(found[2])


class RangeType(click.ParamType):  # type: ignore[type-arg]
    """`1.0:2.5`, or one number for both ends."""

    name = "MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """See click."""
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            return float(low), float(high if colon else low)
        except ValueError:
            self.fail(f"{value!r} is no range; expected MIN:MAX or one number, for instance 1.5:1.5.", param, ctx)


class NamesType(click.ParamType):  # type: ignore[type-arg]
    """`unet,vae_decoder`: names, between commas."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """See click."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


class BytesType(click.ParamType):  # type: ignore[type-arg]
    """`6GB`: an amount of memory, in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        if isinstance(value, int):
            return value
        from amodal.runtime.errors import InputError
        from amodal.runtime.memory.plan import parse_bytes

        try:
            return parse_bytes(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


def warn(messages: Sequence[str]) -> None:
    """Prints warnings to standard error, each as one line, with the options of the command that runs."""
    context = click.get_current_context(silent=True)
    params = context.command.params if context else ()
    for message in messages:
        click.echo(f"Warning: {with_options(message, params)}", err=True)


def print_json(value: Any) -> None:
    """Prints plain data to standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Columns under a rule, as wide as their content; all but the first `texts` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def human_bytes(count: int) -> str:
    """Bytes in decimal units, as in the design: GB = 1e9."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}" if scale == 1e9 else f"{count / scale:.1f} {unit}"
    return f"{count} B"


def human_count(count: int) -> str:
    """Parameters in millions or thousands."""
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def human_difference(difference: float | None) -> str:
    """A relative difference, or a dash where none was measured."""
    return "-" if difference is None else f"{difference:.1e}"
