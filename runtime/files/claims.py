"""The hidden folders in which outputs are prepared: who is at work, and what killed processes left.

A folder `.<name>.partial-<pid>-<random>` claims the output `<name>`, beside it or in it. Its creator holds a lock on
it, which the kernel releases when it dies. The pid alone would not do: containers that share a disk do not see each
other's processes, and reuse the same few pids. It decides only on file systems that have no locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError
from .moving import take_back

_PID, _JOURNAL = "pid", "run.json"


class Claim(NamedTuple):
    """A hidden folder that this process created, and the descriptor that locks it."""

    folder: Path
    lock: int


def claim(place: Path, home: Path) -> Claim:
    """Creates and locks a hidden folder for the output `place` in `home`.

    Raises:
        OutputError: another process is writing to `place`.
    """
    refuse_second(place)
    while True:
        folder = sibling(place, "partial", home)
        folder.mkdir()
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            # Before it is locked, another process may take it for abandoned, and remove it.
            if _try_lock(lock) is not False and folder.exists():
                break
            os.close(lock)
    try:
        refuse_second(place, folder)
    except OutputError:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise
    return Claim(folder, lock)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps `folder` locked, under any name, so that no other process takes it for abandoned."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        _try_lock(lock)
        yield
    finally:
        os.close(lock)


def refuse_second(place: Path, own: Path | None = None) -> None:
    """Raises OutputError if another process is writing to `place`; `own` is this process's claim."""
    for folder, kind, pid in _claims(place):
        if kind == "partial" and folder != own and _is_alive(folder, pid):
            raise OutputError(
                f"another run (pid {pid}) is writing to {place}, in {folder.name}; wait until it has ended, or give "
                "another folder for `out`."
            )
    for box in unfinished_boxes(place):
        if box != own and _is_alive(box, pid := box_owner(box)):
            raise OutputError(
                f"another run (pid {pid}) is writing to {place}, in {box.name}; wait until it has ended, or give "
                "another folder for `out`."
            )


def unfinished_of(place: Path, home: Path) -> Path:
    """Returns the name of the hidden folder of a run that can go on, in `home`; see `unfinished`."""
    return home / f".{place.name}.unfinished"


def unfinished_boxes(place: Path) -> list[Path]:
    """Returns the hidden folders of runs that can go on, beside `place` and in it."""
    return [box for home in (place.parent, place) if (box := unfinished_of(place, home)).is_dir()]


def is_kept(box: Path) -> bool:
    """Returns whether such a folder has something to go on from."""
    return (box / _JOURNAL).is_file() and (box / "new").is_dir()


def box_owner(box: Path) -> int:
    """Returns the process that last wrote to such a folder; 0 if that is not known."""
    with suppress(OSError, ValueError):
        return int((box / _PID).read_text())
    return 0


def lock_box(box: Path) -> int | None:
    """Locks such a folder and signs it; returns the descriptor, None if another process is writing to it."""
    if _is_alive(box, box_owner(box)):
        return None
    lock = os.open(box, os.O_RDONLY)
    if _try_lock(lock) is False:
        os.close(lock)
        return None
    (box / _PID).write_text(str(os.getpid()))
    return lock


def clear_abandoned(place: Path) -> None:
    """Removes what killed processes left; what they had moved away from `place` is put back."""
    for folder, kind, pid in list(_claims(place)):
        with suppress(OSError):
            if _is_alive(folder, pid) is False:
                if kind == "replaced":
                    put_back(folder, place)
                discard(folder, place)


def discard(folder: Path, place: Path) -> None:
    """Removes a hidden folder of `place`, after undoing moves from it that were interrupted."""
    if folder.parent == place:
        take_back(folder, place)  # if it fails, the folder has what is left of the old files, and remains
    shutil.rmtree(folder, ignore_errors=True)


def put_back(aside: Path, place: Path) -> None:
    """Moves a folder that had been moved aside back to its place, if that is empty."""
    if aside.exists() and not os.path.lexists(place):
        os.rename(aside, place)


def sibling(place: Path, kind: str, home: Path | None = None) -> Path:
    """Returns a new hidden name for the output `place`, in `home` or beside it."""
    return (home or place.parent) / f".{place.name}.{kind}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def is_hidden_name(name: str, place: Path) -> bool:
    """Returns whether `name` is that of a hidden folder of the output `place`."""
    return _pattern(place).fullmatch(name) is not None or name == unfinished_of(place, place).name


def _pattern(place: Path) -> re.Pattern[str]:
    return re.compile(rf"\.{re.escape(place.name)}\.(partial|replaced)-([0-9]+)(-.*)?")


def _claims(place: Path) -> Iterator[tuple[Path, str, int]]:
    """Yields the hidden folders of an output, with their kind and their creator's pid."""
    pattern = _pattern(place)
    for home in (place.parent, place):
        with suppress(OSError):
            for path in list(home.iterdir()):
                if match := pattern.fullmatch(path.name):
                    yield path, match[1], int(match[2])


def _is_alive(folder: Path, pid: int) -> bool | None:
    """Returns whether the process that created `folder` still runs; None if that cannot be known."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        locked = _try_lock(descriptor)
    finally:
        os.close(descriptor)
    if locked is not None:
        return not locked
    return True if _runs_here(pid) else None


def _runs_here(pid: int) -> bool:
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # there is one, of another user
        return True
    return True


def _try_lock(descriptor: int) -> bool | None:
    """Locks an open folder; returns False if another process holds the lock, None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno == errno.EWOULDBLOCK else None
    return True
