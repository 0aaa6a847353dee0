"""Writes a folder completely or not at all.

Results and bundles are prepared in a hidden folder and appear when they are complete. How depends on the output:

- It does not exist, or `overwrite` replaces what amodal wrote there: the hidden folder lies beside it and is renamed.
  At no moment are there parts of it under its name, whatever happens.
- It exists and is empty, is a mount point or the current folder, or nothing can be written beside it: it stays, with
  its permissions. The hidden folder lies in it, and when everything is written and synced, the files are moved out of
  it, the marker (`result.json`, `manifest.json`) last. **The marker says that the output is complete.** An exception
  during the moves undoes them. If the process is killed there, the next run into the folder undoes them. With
  `overwrite`, what the old marker lists and what has the name of something new is replaced; other files stay.

If writing is interrupted, the output stays as it was. While one process writes, a second one is refused at once.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from ..errors import AmodalError, InputError, OutputError, OutputExistsError
from ..paths import PathLike
from .claims import (
    claim,
    clear_abandoned,
    discard,
    is_hidden_name,
    is_kept,
    locked,
    put_back,
    refuse_second,
    sibling,
    unfinished_boxes,
)
from .moving import make_box, move_in

_LOG = logging.getLogger(__name__)
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew beyond the allowed size",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EBUSY: "the folder is in use",
    errno.EILSEQ: "the file system does not take the name",
    errno.EINVAL: "the file system does not take the name",
}


def check_output(
    out: PathLike,
    overwrite: bool = False,
    marker: str | None = None,
    inputs: Iterable[PathLike] = (),
    resume: bool = False,
) -> None:
    """Checks that `staged_folder` may write to `out`. Cheap, so call it before any work.

    Args:
        out: the folder to create, or an empty one.
        overwrite: whether the content of an existing folder may be replaced.
        marker: the file that identifies a folder written by amodal (`result.json`, `manifest.json`); a folder that is
            not empty is replaced only if it has the marker.
        inputs: files and folders that are read, and must not be deleted with the old folder.
        resume: whether the caller goes on with a run that is unfinished, see `unfinished`; otherwise that is refused.

    Raises:
        OutputExistsError: `out` has files, or a run into it is unfinished, and `overwrite` is not given; or it is never
            replaced (a file, a folder without the marker or with the home folder in it).
        InputError: `out` holds one of `inputs`, or is a loop of symlinks.
        OutputError: `out` cannot be listed, or another process is writing to it.
    """
    place = resolve_output(out)
    refuse_second(place)
    for box in [] if resume or overwrite else unfinished_boxes(place):
        if is_kept(box):
            raise OutputExistsError(
                f"a run into {out} was stopped before its end, and what it had finished is in {box}; go on with "
                "`resume=True`, or discard it with `overwrite=True`."
            )
    check_content(out, place, overwrite, marker, inputs)


def check_content(out: PathLike, place: Path, overwrite: bool, marker: str | None, inputs: Iterable[PathLike]) -> None:
    """Checks what lies at the resolved `place` of `out`; otherwise as `check_output`."""
    if not os.path.lexists(place):
        nearest = next((folder for folder in place.parents if os.path.lexists(folder)), place)
        if nearest.is_file():
            raise InputError(f"{out} cannot be made, {nearest} is a file; give another folder for `out`.")
        return
    if not place.is_dir():
        raise OutputExistsError(f"{out} is a file, expected a folder to write to; give another for `out`.")
    names = _content(place)
    if not names:
        return
    ours = marker is not None and marker in names and not _is_foreign(place / marker)
    if not overwrite:
        fix = "replace it with `overwrite=True` or " * ours + "give another folder for `out`"
        raise OutputExistsError(f"{out} exists already and is not empty; {fix}.")
    if Path(os.path.expanduser("~")).resolve().is_relative_to(place):
        raise OutputExistsError(
            f"{out} holds the home folder and is never replaced; give a folder inside it for `out`."
        )
    for path in inputs:
        if Path(path).resolve().is_relative_to(place):
            raise InputError(f"{path} lies in {out}, which `overwrite` would delete; give another folder for `out`.")
    if not ours:
        raise OutputExistsError(
            f"{out} is not empty and holds no {marker or 'marker file'} of amodal, so amodal did not write it and "
            "`overwrite` leaves it alone; give another folder for `out`."
        )


def _is_foreign(marker: Path) -> bool:
    """Returns whether a marker is json of another program, which may call its results alike."""
    try:
        content = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return False  # damaged
    return not (isinstance(content, dict) and content.keys() & {"amodal_version", "schema_version", "files"})


@contextmanager
def staged_folder(
    out: PathLike, overwrite: bool = False, marker: str | None = None, inputs: Iterable[PathLike] = ()
) -> Iterator[Path]:
    """Yields a temporary folder whose content is `out`'s when the block ends without an exception.

    Enter it before long work: from then on, another process that wants to write to `out` is refused. Files are synced
    to disk before they appear. On any exception, KeyboardInterrupt included, the temporary folder is removed and `out`
    stays as it was. What killed processes left is removed first. The top of this module says what is promised when.

    Raises:
        OutputExistsError, InputError: as for `check_output`, which is called on entry, or `out` appeared meanwhile.
        OutputError: another process is writing to `out`, or the file system refuses to write (disk full, no
            permission), in the block or around it.
    """
    place, inputs = resolve_output(out), tuple(inputs)
    clear_abandoned(place)
    check_output(out, overwrite, marker, inputs)
    stays = must_stay(place)
    with ExitStack() as undo, explained(place):
        undo.callback(_remove_empty, [folder for folder in place.parents if not folder.exists()])
        place.parent.mkdir(parents=True, exist_ok=True)
        own = claim(place, place if stays else place.parent)
        for box in unfinished_boxes(place):
            discard(box, place)
        undo.callback(os.close, own.lock)
        undo.callback(discard, own.folder, place)
        staging = make_box(own.folder) if stays else own.folder
        _LOG.debug("%s is prepared in %s", place, staging)

        yield staging

        check = partial(check_content, out, place, overwrite, marker, inputs)
        put_in_place(
            staging, place, out, partial(move_in, own.folder, place, marker, overwrite) if stays else None, check
        )


def put_in_place(
    folder: Path, place: Path, out: PathLike, move: Callable[[], None] | None, check: Callable[[], None]
) -> None:
    """Syncs a finished folder and makes it `place`.

    Args:
        move: moves what is in the folder to a place that must stay, see `move_in`; None to rename the folder.
        check: raises if what is at `place` may not be replaced.
    """
    for path in [*folder.rglob("*"), folder]:
        sync(path)
    check()
    if move is not None:
        move()
        sync(place)
    else:
        rename_claimed(folder, place, out)
        sync(place.parent)


def rename_claimed(folder: Path, place: Path, out: PathLike) -> None:
    """Renames a folder of this process to `place`; a folder that is there is moved aside, and deleted after that."""
    aside = sibling(place, "replaced")
    with ExitStack() as undo:
        if os.path.lexists(place):
            undo.enter_context(locked(place))
            undo.callback(put_back, aside, place)
            os.rename(place, aside)
        try:
            os.rename(folder, place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise OutputExistsError(f"{out} was made by another process; give another folder for `out`.") from error
    shutil.rmtree(aside, ignore_errors=True)


def must_stay(place: Path) -> bool:
    """Returns whether files are moved into `place`, instead of a new folder to its path."""
    return place.is_dir() and (
        not _content(place)
        or _is_mount(place)
        or os.path.samefile(place, os.curdir)
        or not os.access(place.parent, os.W_OK | os.X_OK)
    )


def _is_mount(place: Path) -> bool:
    """Returns whether something is mounted at `place`; `Path.is_mount` misses what is of the same file system."""
    if place.is_mount():
        return True
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return any(line.split()[4].decode("unicode_escape").encode("latin-1") == os.fsencode(place) for line in lines)
    return False


def _content(place: Path) -> list[str]:
    """Lists a folder, without what a file system has by itself and without the hidden folders of this module."""
    try:
        names = os.listdir(place)
    except OSError as error:
        raise _output_error(place, error) from error
    return [name for name in names if name != "lost+found" and not is_hidden_name(name, place)]


@contextmanager
def explained(place: Path, keeps: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turns errors of the file system that concern the output into `OutputError`.

    Args:
        keeps: whether something is kept to go on with, see `unfinished`.
    """
    try:
        yield
    except AmodalError:
        raise
    except OSError as error:
        # An error that names another file, such as an unreadable input, does not concern the output.
        named = [Path(str(name)) for name in (error.filename, error.filename2) if name is not None]
        ours = not named or any(_is_ours(path, place) for path in named)
        # numpy's tofile reports a full disk without errno: "262144 requested and 0 written".
        if ours and (named or error.errno in _REASONS or " requested and " in str(error)):
            raise _output_error(place, error, keeps()) from error
        raise


def _is_ours(path: Path, place: Path) -> bool:
    """Returns whether `path` is the output, on the way to it, or in its hidden folder."""
    return path in (place, *place.parents) or any(is_hidden_name(part, place) for part in path.parts)


def _output_error(place: Path, error: OSError, keeps: bool = False) -> OutputError:
    number = error.errno or errno.ENOSPC
    reason = _REASONS.get(number, error.strerror or str(error))
    full = number in (errno.ENOSPC, errno.EDQUOT)
    if keeps:
        what = f"what was finished is kept, {'make room and ' * full}go on with `resume=True`"
    else:
        what = f"nothing was left behind, {'make room or ' * full}give another folder for `out`"
    return OutputError(f"{place} could not be written, {reason}; {what}.")


def resolve_output(out: PathLike) -> Path:
    """Resolves symlinks, so that the target of a link is replaced and not the link."""
    if not os.fspath(out):
        raise InputError("The path of the output is empty; give a folder for `out`.")
    try:
        return Path(out).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symlinks, a NUL in the name
        raise InputError(f"{out!s} cannot be used as a path ({error}); give another folder for `out`.") from error


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def sync(path: Path) -> None:
    """Makes sure that a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync
            raise
    finally:
        os.close(descriptor)
