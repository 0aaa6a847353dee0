"""What the commands share: option types, the console, progress."""

from __future__ import annotations

import json
import re
from typing import Any

import click
from rich.console import Console


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
        low, _, high = str(value).partition(":")
        try:
            return float(low), float(high or low)
        except ValueError:
            self.fail(f"{value!r} is no range; expected MIN:MAX or one number, for instance 1.5:1.5.", param, ctx)


def diagnostics() -> Console:
    """The console for progress, warnings and tables: standard error, so that standard output stays for results."""
    return Console(stderr=True, highlight=False)


def warn(messages: list[str]) -> None:
    """Prints warnings to standard error, each as one line."""
    for message in messages:
        click.echo(f"Warning: {message}", err=True)


def print_json(value: Any) -> None:
    """Prints plain data to standard output."""
    click.echo(json.dumps(value, indent=2))


def human_bytes(count: int) -> str:
    """Bytes in decimal units, as in the design: GB = 1e9."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}" if scale == 1e9 else f"{count / scale:.1f} {unit}"
    return f"{count} B"


def human_count(count: int) -> str:
    """Parameters in millions or thousands."""
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"
