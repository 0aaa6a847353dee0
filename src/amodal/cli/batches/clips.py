"""The clips of a batch: a folder of clips, or a file with a line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from amodal.bench.batches.store import name_of
from amodal.bench.batches.work import Unit
from amodal.runtime.errors import InputError, argument
from amodal.runtime.paths import displayed, sort_names, stem_of

from .running import as_arguments, input_names, refuse_own, run_context

_NAMES = {
    "frames": ("frames", "rgb", "rgbs", "video"),
    "masks": ("masks", "mask", "modal_masks"),
    "depth": ("depth",),
    "amodal": ("amodal",),
    "images": ("images", "frames"),
    "detections": ("detections", "boxes"),
    "images_json": ("images_json",),
}
"""What an option's files are called in a clip's folder, without suffix."""


def read_clips(path: Path, bundle: str, options: Sequence[str]) -> tuple[list[Unit], click.Context]:
    """Finds the clips of a batch, in natural order or that of the file's lines.

    Args:
        path: a folder of folders with `frames`, `masks` and, if there is one, `depth`; or a JSONL file.
        options: of `amodal run`, for all clips.

    Returns:
        The clips, and the context of `amodal run` for the first one.

    Raises:
        InputError: there are no clips, one is not understood, or the options are not those of `amodal run`.
    """
    if path.is_dir():
        command = _command(bundle)
        found = list(_folders(path, command))
    elif path.is_file():
        command = _command(bundle)
        found = list(_lines(path, command))
    else:
        raise InputError(
            f"{displayed(str(path))} does not exist; expected a folder of clips, or a JSONL file with a clip per line.",
            field="clips",
        )
    context = run_context([bundle, *options, *found[0].task["options"], "-o", "OUT"])
    refuse_own([bundle, *options, *found[0].task["options"]])
    tried: set[tuple[str, ...]] = set()
    for number, clip in enumerate(found, 1):
        own = tuple(text for text in clip.task["options"] if text.partition("=")[0] not in _of_files(context.command))
        if own and own not in tried:
            tried.add(own)
            with _named(path, number, clip):
                run_context([bundle, *options, *clip.task["options"], "-o", "OUT"])
    return found, context


def _of_files(command: click.Command) -> set[str]:
    """Returns the options of files, as they are written."""
    names = input_names(command)
    return {text for param in command.params if param.name in names for text in param.opts}


@contextmanager
def _named(path: Path, number: int, clip: Unit) -> Iterator[None]:
    """Says of which clip an error is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{displayed(str(path))}, clip {number} ({clip.key}): {error}", field="clips") from error


def _command(bundle: str) -> click.Command:
    """Returns the bundle's `amodal run`."""
    from amodal.cli.families import command_for

    return command_for("run", bundle)


def _folders(root: Path, command: click.Command) -> Iterator[Unit]:
    wanted = input_names(command)
    if any(_entry(root, name) for name in ("masks", "detections") if name in wanted) and _entry(
        root, "images" if "images" in wanted else "frames"
    ):
        raise InputError(
            f"{displayed(str(root))} is a clip itself; expected a folder of clips: run it with `amodal run`, or give "
            "the folder around it.",
            field="clips",
        )
    folders = sort_names((path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")), str)
    if not folders:
        raise InputError(
            f"{displayed(str(root))} has no folders; expected one for each clip, with frames and masks in it.",
            field="clips",
        )
    for folder in folders:
        files = {name: path for name in wanted if (path := _entry(folder, name))}
        required = "images" if "images" in wanted else "frames"
        if required not in files:
            names = " or ".join(_NAMES[required])
            raise InputError(
                f"{displayed(str(folder))} has no {names}, a folder or a file; expected that in every folder of "
                f"{displayed(str(root))}. Clips that lie otherwise are listed in a JSONL file.",
                field="clips",
            )
        yield Unit(folder.name, {"options": as_arguments(command, {name: str(p) for name, p in files.items()})})


def _entry(folder: Path, option: str) -> Path | None:
    """Returns what lies in a clip's folder for an option; raises InputError if that can be read in two ways."""
    found = [path for path in folder.iterdir() if stem_of(path.name).lower() in _NAMES[option]]
    if len(found) > 1:
        names = " and ".join(sorted(displayed(path.name) for path in found))
        raise InputError(
            f"{displayed(str(folder))} has {names}, which could each be its --{option}; leave one, or say which in a "
            "JSONL file.",
            field="clips",
        )
    return found[0] if found else None


def _lines(file: Path, command: click.Command) -> Iterator[Unit]:
    first: dict[str, int] = {}
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                with argument("clips"):
                    unit = _line(line, number, file.parent, command)
            except InputError as error:
                raise InputError(f"{displayed(str(file))}, line {number}: {error}", field="clips") from error
            name = name_of(unit.key)
            if name in first:
                raise InputError(
                    f"{displayed(str(file))}, line {number}: the id {unit.key} is also that of line {first[name]}; "
                    "give each clip its own.",
                    field="clips",
                )
            first[name] = number
            yield unit
    if not first:
        raise InputError(f"{displayed(str(file))} has no lines; expected a clip per line.", field="clips")


def _line(line: bytes, number: int, folder: Path, command: click.Command) -> Unit:
    expected = 'expected an object such as {"id": "a", "frames": "a/rgb", "masks": "a/masks"}'
    try:
        clip = json.loads(line)
    except ValueError as error:
        raise InputError(f"it is no JSON ({error}); {expected}.") from error
    if not isinstance(clip, dict):
        raise InputError(f"it is {type(clip).__name__}; {expected}.")
    more = clip.pop("options", {})
    key = clip.pop("id", f"clip_{number:06d}")
    if not isinstance(key, str | int) or isinstance(key, bool) or not str(key).strip():
        raise InputError(f"its id is {json.dumps(key)}; expected a name.")
    if not isinstance(more, dict):
        raise InputError(f"its options are {json.dumps(more)}; expected an object of options of `amodal run`.")
    if twice := sorted({*clip} & {*more}):
        raise InputError(f"{', '.join(twice)} is given twice, for the clip and in its options; give it once.")
    options: dict[str, Any] = {**clip, **more}
    for name in input_names(command):
        file = options.get(name)
        if isinstance(file, str):
            options[name] = str(folder / file)
        elif file is not None:
            raise InputError(f"its {name} is {json.dumps(file)}; expected a path as text; {expected}.")
    required = [str(param.name) for param in command.params if param.required and param.name in input_names(command)]
    if missing := [name for name in required if options.get(name) is None]:
        raise InputError(f"it has no {' and no '.join(missing)}; {expected}.")
    return Unit(str(key), {"options": as_arguments(command, options)})
