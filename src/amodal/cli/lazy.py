"""Groups of commands whose modules are imported when a command is called, so that --help is fast."""

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


class LazyGroup(click.Group):
    """A group that prints its help if no command is given.

    Args:
        package: each command is the attribute `command` of the module of its name in it.
        summaries: each command's line in --help, in this order.
    """

    def __init__(self, package: str, summaries: Mapping[str, str], **settings: Any) -> None:
        super().__init__(context_settings={"help_option_names": ["-h", "--help"], "show_default": True}, **settings)
        self._package, self._summaries = package, summaries

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        return super().parse_args(ctx, ["--help"] if args in ([], ["--"]) else args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self._summaries:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """See click; reports an AmodalError in the words of the command."""
        try:
            return super().invoke(ctx)
        except AmodalError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise CommandError(sentence(error, command.params if command else ()), error.exit_code) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))
