"""Which of several objects is meant: the errors that every mask reader shares."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .frames import natural_key


def no_such_object(source: Path, object_id: int | str, ids: Iterable[int | str]) -> InputError:
    """The error for an id that the masks do not hold."""
    return InputError(f"{source} holds no object {object_id}; `object_id` can be {listed(ids) or 'nothing here'}.")


def several_objects(source: Path, ids: Iterable[int | str]) -> InputError:
    """The error for masks of several objects when none was picked."""
    held = list(ids)
    return InputError(f"{source} holds {len(held)} objects ({listed(held)}); pick one with `object_id`.")


def listed(ids: Iterable[int | str], most: int = 20) -> str:
    """Ids in natural order, the first `most` of them."""
    names = sorted((str(name) for name in ids), key=natural_key)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
