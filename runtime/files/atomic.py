"""Writes a folder completely or not at all.

Results and bundles are written into a hidden folder beside the output, `.<name>.partial-<pid>-<random>`, which is
renamed when it is complete. If writing is interrupted, the output stays as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import AmodalError, InputError, OutputError, OutputExistsError
from ..paths import PathLike

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
}


def check_output(
    out: PathLike, overwrite: bool = False, marker: str | None = None, inputs: Iterable[PathLike] = ()
) -> None:
    """Checks that `staged_folder` may write to `out`. Cheap, so call it before any work.

    Args:
        out: the folder to create.
        overwrite: whether an existing folder may be replaced.
        marker: the file that identifies a folder written by amodal (`result.json`, `manifest.json`); a folder without
            it is replaced only if it is empty.
        inputs: files and folders that are read, and must not be deleted with the old folder.

    Raises:
        OutputExistsError: `out` exists without `overwrite`, or is never replaced (a file, a mount point, a folder
            without the marker or with the home folder in it).
        InputError: `out` holds one of `inputs`, or is a loop of symlinks.
        OutputError: `out` cannot be listed.
    """
    place = _resolve(out)
    if not os.path.lexists(place):
        nearest = next((folder for folder in place.parents if os.path.lexists(folder)), place)
        if nearest.is_file():
            raise InputError(f"{out} cannot be made, {nearest} is a file; give another folder for `out`.")
        return
    if not place.is_dir():
        raise OutputExistsError(f"{out} is a file, expected a folder to write to; give another for `out`.")
    if not overwrite:
        fix = "replace it with `overwrite=True` or give another folder for `out`"
        raise OutputExistsError(f"{out} exists already; {fix}.")
    if place.is_mount() or Path(os.path.expanduser("~")).resolve().is_relative_to(place):
        raise OutputExistsError(
            f"{out} is a mount point or holds the home folder and is never replaced; give a folder inside it for `out`."
        )
    for path in inputs:
        if Path(path).resolve().is_relative_to(place):
            raise InputError(f"{path} lies in {out}, which `overwrite` would delete; give another folder for `out`.")
    try:
        names = os.listdir(place)
    except OSError as error:
        raise _output_error(place, error) from error
    if names and (marker is None or marker not in names):
        raise OutputExistsError(
            f"{out} is not empty and holds no {marker or 'marker file'}, so amodal did not write it and "
            "`overwrite` leaves it alone; give another folder for `out`."
        )


@contextmanager
def staged_folder(
    out: PathLike, overwrite: bool = False, marker: str | None = None, inputs: Iterable[PathLike] = ()
) -> Iterator[Path]:
    """Yields a temporary folder beside `out` that becomes `out` when the block ends without an exception.

    Files are synced to disk before the rename. With `overwrite`, the old folder is moved aside, and deleted when the
    new one is in place. On any exception, KeyboardInterrupt included, the temporary folder is removed and `out` stays
    as it was. What killed processes left beside `out` is removed first.

    Raises:
        OutputExistsError, InputError: as for `check_output`, which is called on entry, or `out` appeared meanwhile.
        OutputError: the file system refuses to write (disk full, no permission), in the block or around it.
    """
    place, inputs = _resolve(out), tuple(inputs)
    _clear_leftovers(place)
    check_output(out, overwrite, marker, inputs)
    staging, aside = _sibling(place, "partial"), _sibling(place, "replaced")
    with ExitStack() as undo, _explained(place, staging):
        undo.callback(_remove_empty, [folder for folder in place.parents if not folder.exists()])
        place.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        staging.mkdir()
        lock = os.open(staging, os.O_RDONLY)
        undo.callback(os.close, lock)
        _try_lock(lock)

        yield staging

        for path in [*staging.rglob("*"), staging]:
            _sync(path)
        if os.path.lexists(place):
            check_output(out, overwrite, marker, inputs)
            undo.callback(_put_back, aside, place)
            os.rename(place, aside)
        try:
            os.rename(staging, place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise OutputExistsError(f"{out} was made by another process; give another folder for `out`.") from error
        undo.pop_all()
        os.close(lock)
    _sync(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _explained(place: Path, staging: Path) -> Iterator[None]:
    """Turns errors of the file system that concern the output into `OutputError`."""
    try:
        yield
    except AmodalError:
        raise
    except OSError as error:
        # An error that names another file, such as an unreadable input, does not concern the output.
        named = [Path(str(name)) for name in (error.filename, error.filename2) if name is not None]
        ours = not named or any(path.is_relative_to(staging) or path in (place, *place.parents) for path in named)
        # numpy's tofile reports a full disk without errno: "262144 requested and 0 written".
        if ours and (named or error.errno in _REASONS or " requested and " in str(error)):
            raise _output_error(place, error) from error
        raise


def _output_error(place: Path, error: OSError) -> OutputError:
    number = error.errno or errno.ENOSPC
    reason = _REASONS.get(number, error.strerror or str(error))
    fix = "make room or give" if number in (errno.ENOSPC, errno.EDQUOT) else "give"
    message = f"{place} could not be written, {reason}; nothing was left behind, {fix} another folder for `out`."
    return OutputError(message)


def _resolve(out: PathLike) -> Path:
    """Resolves symlinks, so that the target of a link is replaced and not the link."""
    if not os.fspath(out):
        raise InputError("The path of the output is empty; give a folder for `out`.")
    try:
        return Path(out).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symlinks, a NUL in the name
        raise InputError(f"{out!s} cannot be used as a path ({error}); give another folder for `out`.") from error


def _sibling(place: Path, kind: str) -> Path:
    return place.with_name(f".{place.name}.{kind}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _put_back(aside: Path, place: Path) -> None:
    if aside.exists() and not os.path.lexists(place):
        os.rename(aside, place)


def _clear_leftovers(place: Path) -> None:
    """Removes what killed processes left; a folder that they had moved aside is put back if its place is empty."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.(partial|replaced)-([0-9]+)(-.*)?")
    with suppress(OSError):
        for path in list(place.parent.iterdir()):
            match = pattern.fullmatch(path.name)
            if match is not None and _is_abandoned(path, int(match[2])):
                if match[1] == "replaced":
                    _put_back(path, place)
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(folder: Path, pid: int) -> bool:
    """Returns whether the process that created `folder` is gone.

    The pid is not enough: containers that share a disk do not see each other's processes and reuse the same few pids.
    So the creator also holds a lock on the folder, which the kernel releases when it dies.
    """
    if pid != os.getpid():
        with suppress(ProcessLookupError, OverflowError):
            with suppress(PermissionError):  # there is one, of another user
                os.kill(pid, 0)
            return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync
            raise
    finally:
        os.close(descriptor)
