"""The type of path arguments, natural sorting of file names, and showing names that are no UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

PathLike: TypeAlias = "str | os.PathLike[str]"
UNDECODED = re.compile("[\ud800-\udfff]")  # how Python holds bytes of a name that are no UTF-8: 0xe9 as U+DCE9
T = TypeVar("T")

_DECIMAL = re.compile(r"(?<![\d.])([0-9]+)\.([0-9]+)(?![\d.])")
_NUMBER = re.compile(r"([0-9]+)")
_SUFFIX = re.compile(r"\.(?=[^.]*[A-Za-z])[^./]*$")


def stem_of(name: str) -> str:
    """Returns a file's name without folders and suffix; `0.25` is a number and has no suffix."""
    return _SUFFIX.sub("", name.replace("\\", "/").rsplit("/", 1)[-1])


def natural_key(name: str) -> tuple[tuple[float, int, str], ...]:
    """Returns a sorting key that puts `frame_2` before `frame_10`."""
    parts = _NUMBER.split(name)
    return tuple((0, int(part), part) if i % 2 else (1, 0, part.lower()) for i, part in enumerate(parts))


def sort_names(items: Iterable[T], name: Callable[[T], str] = str) -> list[T]:
    """Sorts in natural order, where decimal numbers count as numbers: 0.25 comes before 0.5.

    Fractions of unequal length are counters instead (1.9 before 1.10) if a longer one ends with 0, which no program
    writes behind a decimal number.
    """
    found = list(items)
    fractions = [match[2] for item in found for match in _DECIMAL.finditer(stem_of(name(item)))]
    lengths = {len(fraction) for fraction in fractions}
    counters = any(fraction.endswith("0") and len(fraction) > min(lengths) for fraction in fractions)
    width = 0 if counters else max(lengths, default=0)

    def key(item: T) -> tuple[object, ...]:
        stem = _DECIMAL.sub(lambda match: f"{match[1]}.{match[2]:0<{width}}", stem_of(name(item)))
        return natural_key(name(item).rpartition("/")[0]), natural_key(stem), natural_key(name(item))

    return sorted(found, key=key)


def displayed(name: str) -> str:
    """Returns a file name as text that can be printed and encoded: bytes that are no UTF-8 as `\\xe9`."""
    return UNDECODED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)
