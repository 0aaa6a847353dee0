"""Folders of long runs, which keep what is finished when the run stops, and go on from there.

`.NAME.unfinished`, beside the output NAME or in it, holds

    new/       what the output will be
    old/       while files are moved into an output that must stay, see `moving`
    work/      what the run needs and the output does not
    run.json   what the run is, and how far it is; always whole, because it is replaced
    pid        of the process that last wrote here

A kill at any moment leaves what the last `run.json` names, and perhaps parts of what was to follow, which are written
again. Everything else is as in `atomic`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import AmodalError, InputError, OutputError
from ..paths import PathLike
from .atomic import (
    check_content,
    check_output,
    explained,
    must_stay,
    put_in_place,
    resolve_output,
    sync,
)
from .claims import clear_abandoned, is_kept, lock_box, refuse_second, sibling, unfinished_boxes, unfinished_of
from .moving import has_moved, make_box, move_in, take_back

_JOURNAL, _WORK, _NEW = "run.json", "work", "new"
_VERSION = 1


@dataclass
class Unfinished:
    """The folder of a run that can go on.

    Attributes:
        box: the hidden folder.
        identity: what the run is.
        state: what `commit` was last given, in this run or the one that it continues; empty at first.
        finished: whether the output has everything.
    """

    box: Path
    identity: Mapping[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    @property
    def keeps(self) -> bool:
        """Whether there is something to go on from; asked of the disk, since a signal may come after any step."""
        return not self.finished and (self.box / _JOURNAL).is_file()

    @property
    def folder(self) -> Path:
        """What is written here is the output's."""
        return self.box / _NEW

    @property
    def work(self) -> Path:
        """For what the output does not have."""
        return self.box / _WORK

    def commit(self, state: Mapping[str, Any], files: Iterable[Path]) -> None:
        """Makes sure that `files` are on the disk, and then that the run goes on from `state`."""
        folders = set()
        for path in files:
            sync(path)
            folders.add(path.parent)
        for folder in folders:
            sync(folder)
        self.state = dict(state)
        document = {"version": _VERSION, "identity": self.identity, "state": self.state}
        replace_json(self.box / _JOURNAL, document)


def refuse_unfinished(out: PathLike) -> None:
    """Raises `InputError` if a run into `out` is unfinished; for callers that cannot go on with any."""
    if any(is_kept(box) for box in unfinished_boxes(resolve_output(out))):
        raise InputError(
            "the run to go on with was of a longer clip, of several objects or with a gate. Give what it was given, or "
            "begin anew with `overwrite=True`, without `resume`.",
            field="resume",
        )


@contextmanager
def unfinished_folder(
    out: PathLike,
    identity: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    marker: str | None = None,
    inputs: Iterable[PathLike] = (),
) -> Iterator[Unfinished]:
    """Yields a folder whose content is `out`'s when the block ends without an exception, as `staged_folder` does.

    After an exception, what was committed is kept; the error says so, in its message if it is amodal's and in its
    attribute `kept` otherwise. If nothing was committed, nothing is left.

    Args:
        identity: what the run is; plain values by the name of an argument, or by words. A run goes on only if all of
            them are the same.
        resume: go on from what a run left; without any, a new one begins.
        overwrite: replace the content of `out` and, unless `resume`, what an unfinished run left.
        marker, inputs: as for `staged_folder`.

    Raises:
        InputError: what is to go on was begun with another identity.
        OutputExistsError, OutputError: as for `staged_folder`; or a run is unfinished, and neither `resume` nor
            `overwrite` is given.
    """
    place, inputs = resolve_output(out), tuple(inputs)
    identity = json.loads(json.dumps(identity))
    clear_abandoned(place)
    refuse_second(place)
    box = _find(place, resume)
    check_output(out, overwrite, marker, inputs, resume)
    with ExitStack() as undo, explained(place):
        undo.callback(_remove_empty, [folder for folder in place.parents if not folder.exists()])
        place.parent.mkdir(parents=True, exist_ok=True)
        stays = must_stay(place)
        run = undo.enter_context(_claimed(place, place if stays else place.parent, box, identity))
        with _told(run, place):
            run.work.mkdir(exist_ok=True)
            yield run

            check = partial(check_content, out, place, overwrite, marker, inputs)
            put_in_place(
                run.folder, place, out, partial(move_in, run.box, place, marker, overwrite) if stays else None, check
            )
        run.finished = True


def replace_json(path: Path, value: Any) -> None:
    """Writes json so that the file has its old content or all of the new one, whatever happens."""
    new = path.with_name(f"{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync(path.parent)


def _find(place: Path, resume: bool) -> Path | None:
    """Returns what an unfinished run left to go on from; removes what holds nothing."""
    found = None
    for box in unfinished_boxes(place):
        if box.parent == place and has_moved(box):  # killed after the last file was in its place
            shutil.rmtree(box, ignore_errors=True)
        elif not is_kept(box):
            if box.parent == place:
                take_back(box, place)
            shutil.rmtree(box, ignore_errors=True)
        elif resume:
            found = box
    return found


@contextmanager
def _claimed(place: Path, home: Path, box: Path | None, identity: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Makes the hidden folder in `home`, or takes over `box`; removes it at the end unless it is to be kept."""
    wanted = unfinished_of(place, home)
    new = box or sibling(place, "partial", home)
    if box is None:
        new.mkdir()
    lock = lock_box(new)
    if lock is None:
        raise OutputError(f"another run is writing to {place}; wait until it has ended, or give another for `out`.")
    run, at = Unfinished(wanted, identity), new
    try:
        if box is None:
            make_box(new)
            refuse_second(place, new)
            for other in unfinished_boxes(place):  # with `overwrite`
                _remove(other, place)
        else:
            run.state = _read_state(box, identity)
            if box.parent == place:
                take_back(box, place, keep=True)
        os.rename(new, wanted)
        at = wanted
        yield run
    finally:
        keeps = not run.finished and (at / _JOURNAL).is_file()
        if at.parent == place:
            take_back(at, place, keep=keeps)
        if not keeps:
            shutil.rmtree(at, ignore_errors=True)
        os.close(lock)


def _remove(box: Path, place: Path) -> None:
    if box.parent == place:
        take_back(box, place)
    shutil.rmtree(box)


def _read_state(box: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document = json.loads((box / _JOURNAL).read_text("utf-8"))
        known, state, version = document["identity"], dict(document["state"]), document["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{box / _JOURNAL}, which says how far the run was, is damaged; begin anew with `overwrite=True`, without "
            "`resume`.",
            field="resume",
        ) from None
    if version != _VERSION:
        raise InputError(f"{box} was written by another version of amodal; begin anew with `overwrite=True`.")
    differing = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
    if differing:
        told = "; ".join(_difference(name, known.get(name), identity.get(name)) for name in differing)
        raise InputError(
            f"the run to go on with was another one: {told}. Give what it was given, or begin anew with "
            "`overwrite=True`, without `resume`.",
            field=differing[0] if differing[0].isidentifier() else "resume",
        )
    return state


def _difference(name: str, before: Any, now: Any) -> str:
    label = f"`{name}`" if name.isidentifier() else name
    plain = all(isinstance(value, int | float | str | None) and len(str(value)) < 60 for value in (before, now))
    told = ["not given" if value is None else value for value in (before, now)]
    return f"{label} was {told[0]} and is {told[1]}" if plain and name.isidentifier() else f"{label} changed"


@contextmanager
def _told(run: Unfinished, place: Path) -> Iterator[None]:
    """Adds to an exception that what is finished is kept."""
    try:
        with explained(place, lambda: run.keeps):
            yield
    except AmodalError as error:
        if run.keeps and "`resume" not in str(error):
            error.args = (f"{error} {_advice(error)}", *error.args[1:])
        raise
    except BaseException as error:
        if run.keeps:
            error.kept = True  # type: ignore[attr-defined]
        raise


def _advice(error: AmodalError) -> str:
    if isinstance(error, InputError):  # a mended input is another one, with which `_read_state` refuses to go on
        return (
            "What was finished is kept; `resume=True` goes on from there if the inputs stay as they are. With mended "
            "ones, begin anew with `overwrite=True`."
        )
    return "What was finished is kept; `resume=True` goes on from there."


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
