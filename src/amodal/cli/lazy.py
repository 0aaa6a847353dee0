"""A group of commands whose modules are imported when they are called, so that --help costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from amodal.runtime.errors import AmodalError

from .sentences import sentence


class CommandError(Exception):
    """An AmodalError in the words of the command that raised it, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def lazy_group(package: str, commands: Mapping[str, str]) -> type[click.Group]:
    """A class of groups.

    Args:
        package: where each command is an attribute `command` of a module of its name.
        commands: what each does, in the order of --help.
    """

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(commands)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in commands:
                return None
            command: click.Command = import_module(f"{package}.{cmd_name}").command
            return command

        def invoke(self, ctx: click.Context) -> Any:
            try:
                return super().invoke(ctx)
            except AmodalError as error:
                command = self.get_command(ctx, ctx.invoked_subcommand or "")
                raise CommandError(sentence(error, command.params if command else ()), error.exit_code) from error

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl(list(commands.items()))

    return Lazy
