"""Finds the files of a clip in a folder, in order, and says what was passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..paths import PathLike, sort_names, stem_of

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".avif", ".heic",
    ".heif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pfm", ".exr", ".hdr",
)  # fmt: skip
"""Pictures that are read; HEIC and HEIF with the package pillow-heif only."""
_JUNK = {"thumbs.db", "desktop.ini"}  # of file managers; those of macOS are hidden


@dataclass(frozen=True)
class Listing:
    """The files of one clip in order, and one sentence about what lies beside them, if anything does."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)


def join_ranges(numbers: Iterable[int], most: int = 8) -> str:
    """Joins whole numbers into text such as `0, 3-7, 9`, shortened after `most` groups."""
    groups: list[list[int]] = []
    for number in sorted(numbers):
        if groups and number == groups[-1][1] + 1:
            groups[-1][1] = number
        else:
            groups.append([number, number])
    text = [str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in groups[:most]]
    return ", ".join(text) + (", ..." if len(groups) > most else "")


def require_path(path: PathLike, expected: str) -> Path:
    """Returns `path` as a `Path`; raises `InputError` if it does not exist or may not be read."""
    if not os.fspath(path):
        raise InputError(f"The path is empty; expected {expected}.")
    found = Path(path)
    try:
        fault = "" if found.exists() else "does not exist"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    except ValueError:  # a NUL in it
        fault = "is no path"
    if not fault and not os.access(found, os.R_OK):
        fault = "may not be read (permission denied)"
    if fault:
        raise InputError(f"{found} {fault}; expected {expected}.")
    return found


def folder_entries(folder: Path) -> list[Path]:
    """Returns what a folder holds, without hidden files; raises `InputError` if it cannot be opened."""
    try:
        return [e for e in folder.iterdir() if not e.name.startswith((".", "@")) and e.name.lower() not in _JUNK]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be opened as a folder ({error.strerror}); give a folder of images."
        ) from error


def list_files(folder: PathLike, suffixes: Collection[str], what: str = "image") -> Listing:
    """Lists the files of these suffixes in natural order.

    Raises:
        InputError: no folder, none of these files in it, or two that differ in their suffix alone.
    """
    root = require_path(folder, f"a folder of {what}s")
    entries = folder_entries(root)
    files = [entry for entry in entries if entry.is_file()]
    folders = len([entry for entry in entries if entry.is_dir()])
    found = sort_names((file for file in files if file.suffix.lower() in suffixes), lambda file: file.name)
    if not found and folders:
        held = "a folder" if folders == 1 else f"{folders} folders"
        raise InputError(f"{root} holds {held} and no {what}s; give the one with the {what}s.")
    if not found:
        held = f"holds {len(files)} files, none of them an {what}" if files else "is an empty folder"
        kinds = ", ".join(suffix[1:] for suffix in suffixes)
        raise InputError(f"{root} {held}; expected {what}s ({kinds}).")
    broken = [e.name for e in entries if e.suffix.lower() in suffixes and e.is_symlink() and not e.exists()]
    if broken:
        raise InputError(f"{root / broken[0]} is a link to a file that is not there; mend it or remove it.")
    _refuse_twins(root, found)
    others = Counter(file.suffix.lower() or "no suffix" for file in files if file.suffix.lower() not in suffixes)
    passed = [f"{count} of {suffix}" for suffix, count in sorted(others.items())]
    passed += [f"{folders} folder{'s' * (folders > 1)}"] if folders else []
    return Listing(found, [f"{root}: passed over files that are no {what}s: {', '.join(passed)}."] if passed else [])


def list_images(folder: PathLike) -> list[Path]:
    """Lists the images of a folder in natural order; raises `InputError` if there is no folder or no image in it."""
    return list_files(folder, IMAGE_SUFFIXES).files


def _refuse_twins(folder: Path, files: list[Path]) -> None:
    """Refuses 0.jpg beside 0.png: which of them is frame 0 could be read in two ways."""
    first: dict[str, Path] = {}
    for file in files:
        twin = first.setdefault(stem_of(file.name), file)
        if twin is not file:
            raise InputError(
                f"{folder} holds both {twin.name} and {file.name}, which name the same frame; give a folder with one "
                "of the kinds alone."
            )
