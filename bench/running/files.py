"""Text files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amodal.runtime.errors import OutputError


def write_whole(file: Path, text: str) -> None:
    """Writes a temporary file beside `file` and renames it; creates the folder. Raises OutputError if that fails."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with _explained(file, "written", "free some space"):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


def remove(file: Path) -> None:
    """Deletes a file if it exists. Raises OutputError if that fails."""
    with _explained(file, "removed", "remove it"):
        file.unlink(missing_ok=True)


@contextmanager
def _explained(file: Path, action: str, fix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{file} cannot be {action} ({error.strerror}); {fix}, or choose another place for `out`."
        ) from error
