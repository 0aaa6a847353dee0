"""Tries, before long work, what could fail when its results are written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, OutputError
from ..paths import displayed


def try_names(folder: Path, names: Sequence[str]) -> None:
    """Creates files of these names in a new folder in `folder`, and removes them.

    Raises:
        InputError: the file system does not take a name, or takes two for the same (`a.png` and `A.png`).
        OSError: files cannot be created at all.
    """
    trial = folder / ".trial"
    shutil.rmtree(trial, ignore_errors=True)  # of a run that was killed
    trial.mkdir()
    try:
        for name in names:
            os.close(os.open(trial / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise InputError(
            f"two frames would be written as {displayed(name)}, which differ at most in upper and lower case there; "
            "rename one of them.",
            field="frames",
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise InputError(
            f"the file system takes no file named {displayed(name)} ({(error.strerror or 'refused').lower()}), as the "
            "result of a frame is named after it; rename the frame.",
            field="frames",
        ) from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def require_space(folder: Path, needed: int) -> None:
    """Checks that `needed` bytes are free where `folder` is.

    Raises:
        OutputError: they are not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{free / 1e6:.0f} MB are free for the results, which may take {needed / 1e6:.0f} MB; make room or give "
            "another folder for `out`."
        )
