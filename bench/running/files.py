"""Text files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from amodal.runtime.errors import OutputError


def write_whole(file: Path, text: str) -> None:
    """Writes beside the place and renames; makes the folder.

    Raises:
        OutputError: it cannot be written: no room, no permission, or something else is in the way.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OutputError(
            f"{file} cannot be written ({error.strerror}); free some space, or choose another place for `out`."
        ) from error


def remove(file: Path) -> None:
    """Takes a file away, if it is there.

    Raises:
        OutputError: it cannot be taken away.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{file} cannot be removed ({error.strerror}); remove it, or choose another place for `out`."
        ) from error
