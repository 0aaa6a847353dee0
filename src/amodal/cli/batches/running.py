"""A clip of a batch is run by the command `amodal run` itself, in a process that keeps its model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from amodal.cli.families import FamilyCommand
from amodal.cli.families.keeping import Keeper, keeping
from amodal.cli.sentences import sentence
from amodal.runtime.errors import AmodalError, InputError

NOT_COMPUTED = ("threads", "device", "memory", "vram", "engine_dir", "verify", "quiet", "verbose", "as_json")
"""Options that say how a bundle is run or what is printed, not what comes out."""
OF_BATCH = ("bundle", "out", "overwrite", "resume", "quiet", "verbose", "as_json", "help")
"""Options of `amodal run` that a batch gives itself."""


class ClipRunner:
    """Runs clips as `amodal run BUNDLE OPTIONS -o FOLDER` does; implements `amodal.bench.batches.work.Runner`.

    Args:
        bundle: the bundle of all clips.
        options: options of `amodal run` for all clips, as on the command line.
    """

    marker = "result.json"

    def __init__(self, bundle: str, options: Sequence[str]) -> None:
        self._bundle, self._options = bundle, list(options)
        self._keeper = Keeper()

    def run(self, task: Mapping[str, Any], folder: Path) -> None:
        """Runs a clip; `task["options"]` are its own options of `amodal run`, as on the command line."""
        more = ["--quiet", "--overwrite", "-o", str(folder)]
        context = run_context([self._bundle, *self._options, *task["options"], *more])
        with keeping(self._keeper), context:
            try:
                context.command.invoke(context)
            except AmodalError as error:
                error.args = (sentence(error, context.command.params), *error.args[1:])
                error.field = None
                raise


def run_context(args: Sequence[str]) -> click.Context:
    """Parses arguments of `amodal run`; the context's command is that of the bundle's family.

    Raises:
        InputError: they are not what that command takes.
    """
    try:
        return FamilyCommand("run").make_context("run", list(args))
    except click.UsageError as error:
        raise InputError(f"{error.format_message()} See `amodal run --help`.") from error


def refuse_own(args: Sequence[str]) -> None:
    """Raises InputError if arguments of `amodal run` have an OUT, which a batch gives itself."""
    try:
        context = FamilyCommand("run").make_context("run", list(args), resilient_parsing=True)
    except click.UsageError as error:
        raise InputError(f"{error.format_message()} See `amodal run --help`.") from error
    if context.params.get("out") is not None:
        raise InputError("after `--`, -o is not for single clips; write it before `--`, as the batch's own folder.")


def settings_of(context: click.Context) -> dict[str, Any]:
    """Returns the options that a run's results depend on, beside its inputs and its bundle, as text by name."""
    left_out = {*NOT_COMPUTED, *OF_BATCH, *input_names(context.command)}
    return {name: _text(value) for name, value in sorted(context.params.items()) if name not in left_out}


def input_names(command: click.Command) -> list[str]:
    """Returns the options of a family's `run` that name files of a clip."""
    return [name for name in FILES if any(param.name == name for param in command.params)]


FILES = ("frames", "masks", "depth", "amodal", "images", "detections", "images_json")
"""Options that name files of a clip, of all families."""


def as_arguments(command: click.Command, options: Mapping[str, Any]) -> list[str]:
    """Returns options of `amodal run`, by name with `_` or `-`, as on the command line.

    Args:
        options: text and numbers; true and false for what is switched; lists for what takes several, with commas.

    Raises:
        InputError: a name that the command does not have or a batch gives itself, or a value of another kind.
    """
    known = {param.name: param for param in command.params if isinstance(param, click.Option)}
    arguments = []
    for name, value in options.items():
        option = known.get(name.replace("-", "_")) or known.get({"object": "object_id"}.get(name, ""))
        if option is None or option.name in OF_BATCH:
            why = (
                "is not for single clips" if option is not None or name in OF_BATCH else "is no option of `amodal run`"
            )
            raise InputError(f"{name} {why}; expected some of {', '.join(sorted(set(known) - set(OF_BATCH)))}.")
        written = max(option.opts, key=len)
        if isinstance(value, bool):
            if not option.is_flag:
                raise InputError(f"{name} is {json.dumps(value)}; expected a value, as `amodal run --help` says.")
            if value or option.secondary_opts:
                arguments.append(written if value else max(option.secondary_opts, key=len))
        elif isinstance(value, str | int | float | list) and not option.is_flag:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            arguments += [f"{written}={text}"]
        elif value is not None:
            raise InputError(f"{name} is {json.dumps(value)}; expected {'true or false' * option.is_flag or 'text'}.")
    return arguments


def _text(value: Any) -> Any:
    return value if isinstance(value, bool | int | str) or value is None else str(value)
