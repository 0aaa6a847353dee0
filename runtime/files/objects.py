"""Ids of objects: which one is meant, how several are listed, and the folders that are named after them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..paths import natural_key
from ..pictures.object_ids import ObjectId, format_id

Id = TypeVar("Id")
_LONGEST_NAME = 60


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


def folder_names(objects: Sequence[ObjectId]) -> list[str]:
    """Returns a name for each object that every file system takes, and takes for another: letters, digits, `._-`."""
    names: list[str] = []
    for object_id in objects:
        plain = re.sub(r"[^\w.-]+", "_", format_id(object_id).removeprefix("#"), flags=re.ASCII)[:_LONGEST_NAME]
        base = plain.strip("._") or "object"
        taken = {name.lower() for name in names}
        free = (base if n == 1 else f"{base}-{n}" for n in range(1, len(objects) + 1))
        names.append(next(name for name in free if name.lower() not in taken))
    return names
