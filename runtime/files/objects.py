"""Ids of objects: which one is meant, and how several are listed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..paths import natural_key

Id = TypeVar("Id")


def choose_object(source: Path, ids: Iterable[Id], object_id: int | str | None) -> Id:
    """Returns the id of the object to read: the one whose text is that of `object_id`, or the only one.

    Raises:
        InputError: no object has that id, or none was chosen of several.
    """
    known = list(ids)
    matching = [name for name in known if object_id is None or str(name) == str(object_id)]
    if object_id is None and len(known) > 1:
        raise InputError(f"{source} holds {len(known)} objects ({join_ids(known)}); pick one with `object_id`.")
    if not matching:
        allowed = join_ids(known) or "nothing here"
        raise InputError(f"{source} holds no object {object_id}; `object_id` can be {allowed}.")
    return matching[0]


def join_ids(ids: Iterable[Any], most: int = 20) -> str:
    """Joins the first `most` ids in natural order into text."""
    names = sorted((str(name) for name in ids), key=natural_key)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
