"""Moves finished files into a folder that must stay where it is, so that a kill in between can be undone.

The hidden folder `box` inside the output has `new/`, what was prepared; `old/`, what the output had before; and, from
the moment when files are moved, `names.json`, the names of all that is new.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ..errors import OutputExistsError

_NEW, _OLD, _NAMES = "new", "old", "names.json"


def make_box(box: Path) -> Path:
    """Creates the folders in `box`; returns the one to prepare files in."""
    (box / _NEW).mkdir()
    (box / _OLD).mkdir()
    return box / _NEW


def move_in(box: Path, place: Path, marker: str | None, overwrite: bool) -> None:
    """Moves what is in `box` to `place`, the marker last; what `place` had of a previous run is moved to `box`.

    Raises:
        OutputExistsError: `place` has a file of a new name, without `overwrite`.
    """
    names = sorted((path.name for path in (box / _NEW).iterdir()), key=lambda name: (name == marker, name))
    taken = [name for name in names if os.path.lexists(place / name)]
    if taken and not overwrite:
        raise OutputExistsError(f"{place / taken[0]} was made by another process; give another folder for `out`.")
    (box / _NAMES).write_text(json.dumps(names), encoding="utf-8")
    old = {*taken, *(_listed(place / marker) if marker else ())}
    for name in sorted(old, key=lambda name: (name != marker, name)):
        if os.path.lexists(place / name):
            os.rename(place / name, box / _OLD / name)
    for name in names:
        os.rename(box / _NEW / name, place / name)


def has_moved(box: Path) -> bool:
    """Returns whether a `move_in` got to its end."""
    try:
        names = json.loads((box / _NAMES).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return not any(os.path.lexists(box / _NEW / name) for name in names)


def take_back(box: Path, place: Path, keep: bool = False) -> None:
    """Undoes a `move_in` that did not get to its end; does nothing after one that did, or before it began.

    Args:
        keep: move what is new back to `box`, instead of deleting it.
    """
    try:
        names = json.loads((box / _NAMES).read_text("utf-8"))
    except (OSError, ValueError):
        return
    moved = [name for name in names if not os.path.lexists(box / _NEW / name)]
    if len(moved) == len(names):
        return
    for name in moved:
        if keep:
            os.rename(place / name, box / _NEW / name)
        else:
            _remove(place / name)
    for path in (box / _OLD).iterdir():
        os.rename(path, place / path.name)
    if keep:
        (box / _NAMES).unlink()


def _listed(marker: Path) -> list[str]:
    """Returns the marker's name and the first parts of the paths in its `files`, as far as they are in its folder."""
    try:
        document = json.loads(marker.read_text("utf-8"))
        paths = [str(path) for path in document["files"]]
    except (OSError, ValueError, TypeError, KeyError):  # not every marker has them
        paths = []
    names = {path.partition("/")[0] for path in paths} - {"", ".", ".."}
    return [marker.name, *sorted(names - {marker.name})]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
