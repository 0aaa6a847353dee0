"""Errors of every mask reader about which of several objects is meant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from ..errors import InputError
from ..paths import natural_key


def report_unknown_object(source: Path, object_id: int | str, ids: Iterable[int | str]) -> NoReturn:
    """Raises `InputError` for an id that the masks do not hold."""
    raise InputError(f"{source} holds no object {object_id}; `object_id` can be {join_ids(ids) or 'nothing here'}.")


def report_several_objects(source: Path, ids: Iterable[int | str]) -> NoReturn:
    """Raises `InputError` for masks of several objects when none was picked."""
    held = list(ids)
    raise InputError(f"{source} holds {len(held)} objects ({join_ids(held)}); pick one with `object_id`.")


def join_ids(ids: Iterable[int | str], most: int = 20) -> str:
    """The first `most` ids in natural order, separated by commas."""
    names = sorted((str(name) for name in ids), key=natural_key)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
