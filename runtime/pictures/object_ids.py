"""Ids of objects as people type them: numbers, text and colours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from ..paths import natural_key

ObjectId: TypeAlias = "int | str"

_COLOUR = re.compile(r"#?([0-9a-f]{6})|\(?(\d{1,3}), ?(\d{1,3}), ?(\d{1,3})\)?", re.IGNORECASE)


def same_id(a: ObjectId, b: ObjectId) -> bool:
    """Tells whether two ids mean the same: 3 and `3`, `#ff0000` and `255,0,0`; other text must be equal."""
    if str(a) == str(b):
        return True
    if isinstance(a, int) or isinstance(b, int):
        return _as_number(a) is not None and _as_number(a) == _as_number(b)
    listed = any(text.startswith("#") or "," in text for text in (a, b))  # `100000` and `1e3` may be names
    return listed and parse_colour(a) is not None and parse_colour(a) == parse_colour(b)


def format_id(object_id: ObjectId) -> str:
    """Returns an id as it is listed, and can be typed: numbers in decimals, colours as `#rrggbb`."""
    return str(object_id)


def list_ids(ids: Iterable[ObjectId], most: int = 20) -> str:
    """Joins the first `most` ids in natural order into text."""
    names = [format_id(one) for one in sorted(ids, key=_order)]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _order(object_id: ObjectId) -> Any:
    return (0, object_id) if isinstance(object_id, int) else (1, natural_key(object_id))


def _as_number(value: ObjectId) -> int | None:
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else None


def parse_colour(value: ObjectId) -> int | None:
    """Returns the number of a colour written as `#ff0000`, `ff0000` or `255,0,0`, red first; None for other text."""
    found = _COLOUR.fullmatch(str(value).strip())
    if found is None:
        return None
    if found[1]:
        return int(found[1], 16)
    red, green, blue = (int(channel) for channel in found.groups()[1:])
    return red << 16 | green << 8 | blue if max(red, green, blue) < 256 else None
