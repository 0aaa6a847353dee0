"""Plots as files of their own."""

from __future__ import annotations

import os
from pathlib import Path

from amodal.runtime.errors import InputError, OutputError
from amodal.runtime.paths import PathLike

from ..schema import Memory
from .drawing import PAPER, require_libraries, styled_canvas
from .memory import plot_timeline


def check_picture(path: PathLike) -> Path:
    """Checks that `save_memory` could write this file, so that errors come before the measurement.

    Raises:
        InputError: the name ends in neither .png nor .svg.
        MissingDependencyError: matplotlib is not installed.
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{file} is no picture; expected a name that ends in .png or .svg.", field="picture")
    require_libraries("matplotlib")
    return file


def save_memory(measured: Memory, path: PathLike) -> None:
    """Saves the report's plot of memory over time as a picture.

    Raises:
        InputError, MissingDependencyError: see `check_picture`.
        OutputError: the file cannot be written.
    """
    file = check_picture(path)
    part = file.with_name(f".{file.name}.partial-{os.getpid()}")
    with styled_canvas() as canvas:
        plot_timeline(measured, canvas)
        try:
            canvas.savefig(part, format=file.suffix[1:].lower(), dpi=200, facecolor=PAPER)
            os.replace(part, file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{file} cannot be written ({error.strerror or error}).", field="picture") from error
