"""Single plots as files of their own."""

from __future__ import annotations

import os
from pathlib import Path

from amodal.runtime.errors import InputError, OutputError
from amodal.runtime.paths import PathLike

from ..schema import Memory
from .drawing import PAPER, Canvas, require_matplotlib
from .memory import draw_timeline

_SUFFIXES = (".png", ".svg")


def check_picture(path: PathLike) -> Path:
    """The file, if `save_memory` can make such a one; for errors before anything is measured.

    Raises:
        InputError, MissingDependencyError: see `save_memory`.
    """
    file = Path(path)
    if file.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"{file} is no picture; expected a name that ends in {' or '.join(_SUFFIXES)}.", field="picture"
        )
    require_matplotlib()
    return file


def save_memory(measured: Memory, path: PathLike) -> None:
    """Memory over time, as in the report, as a picture.

    Raises:
        InputError: the name ends in neither .png nor .svg.
        MissingDependencyError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    file = check_picture(path)
    part = file.with_name(f".{file.name}.partial-{os.getpid()}")
    with Canvas(3.3) as (figure, (axes,)):
        draw_timeline(figure, axes, measured)
        try:
            figure.savefig(part, format=file.suffix[1:].lower(), dpi=200, facecolor=PAPER)
            os.replace(part, file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{file} cannot be written ({error.strerror or error}).", field="picture") from error
