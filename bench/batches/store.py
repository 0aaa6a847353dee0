"""One file per finished unit of work, so that whatever stops the work loses only what was not finished.

    OUT/settings.json       what all units were computed with; work with other settings is refused
    OUT/units/KEY.json      a unit's record, which appears whole

A unit's key is any text; its file's name is the key with what a name may not have written as `%2F`. A record that
cannot be read, because the machine lost power while it was written, counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from amodal.runtime.errors import InputError, OutputExistsError
from amodal.runtime.paths import PathLike, displayed

from .places import Place, open_place

SETTINGS, UNITS = "settings.json", "units"
_LONGEST, _SHOWN = 150, 5
Record = dict[str, Any]


class UnitStore:
    """The finished units of some work, at one place. Several processes and machines may write to it at once.

    Args:
        place: see `places`.
        settings: what all units are computed with, of JSON's types.
    """

    def __init__(self, place: Place, settings: Mapping[str, Any]) -> None:
        self.place, self.settings = place, dict(settings)

    def get(self, key: str) -> Record | None:
        """Returns a unit's record; None if there is none that can be read."""
        found = _read_json(self.place.read(_file_of(key)))
        return found["record"] if found is not None and found.get("key") == key else None

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Writes a unit's record, of JSON's types, completely or not at all. Raises OutputError."""
        self.place.write(_file_of(key), _json({"key": key, "record": dict(record)}))

    def records(self) -> Iterator[tuple[str, Record]]:
        """Yields all units that are there, in the order of their files' names."""
        for name in sorted(self.place.names(UNITS)):
            found = _read_json(self.place.read(f"{UNITS}/{name}"))
            if found is not None and "key" in found:
                yield found["key"], found["record"]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Returns those of `keys` whose units have no file, in their order."""
        there = set(self.place.names(UNITS))
        return [key for key in keys if f"{name_of(key)}.json" not in there]


def create_store(out: PathLike, settings: Mapping[str, Any], resume: bool = False) -> UnitStore:
    """Begins a store at `out`, or goes on with the one that is there.

    Args:
        resume: whether to go on; otherwise a store that is there is refused.

    Raises:
        OutputExistsError: there is a store and `resume` is not given, or files that are none.
        InputError: the store there was made with other settings.
        OutputError: nothing can be written.
    """
    place = open_place(out)
    settings = json.loads(_json(settings))
    there = place.read(SETTINGS)
    if there is None:
        if place.names(""):
            raise OutputExistsError(
                f"{displayed(str(out))} exists and has no {SETTINGS}, so no batch was begun there; give another folder "
                "for `out`."
            )
        if place.create(SETTINGS, _json(settings)):
            return UnitStore(place, settings)
        there = place.read(SETTINGS)  # another machine began it meanwhile
    elif not resume:
        raise OutputExistsError(
            f"{displayed(str(out))} holds results already; go on with `resume=True`, or give another folder for `out`."
        )
    found = _read_json(there)
    if found != settings:
        raise InputError(
            f"{displayed(str(out))} holds results of other settings ({_difference(found or {}, settings)}); use the "
            "same ones, or give another folder for `out`.",
            field="out",
        )
    return UnitStore(place, settings)


def name_of(key: str) -> str:
    """Returns the file name of a unit without its suffix: unique, of at most 150 characters, and never hidden."""
    name = quote(key, safe=" ()+,=@[]{}", errors="surrogateescape")
    name = re.sub(r"^[.~]|[. ]$", lambda found: f"%{ord(found[0]):02X}", name)
    if len(name) <= _LONGEST and name:
        return name
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    return f"{name[: _LONGEST - 17]}%{digest[:16]}"


def _file_of(key: str) -> str:
    return f"{UNITS}/{name_of(key)}.json"


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _read_json(content: bytes | None) -> Record | None:
    try:
        found = json.loads(content or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Says in which settings two differ, nested ones by their path."""
    old, new = dict(_flat(there)), dict(_flat(here))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return "; ".join(f"{name} is {old.get(name)} there and {new.get(name)} here" for name in names[:_SHOWN])


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", found) for inner, found in _flat(value))
        else:
            yield name, value
