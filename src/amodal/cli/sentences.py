"""Turns the Python arguments in a message into options of a command."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from amodal.runtime.errors import AmodalError

_ARGUMENT = re.compile(r'`(\w+)(?:=("?)([^`"]*)\2)?`')


def with_options(text: str, params: Iterable[click.Parameter]) -> str:
    """Replaces `vram` by --vram and `memory="sequential"` by --memory sequential, for arguments among `params`."""
    known = {param.name: param for param in params}

    def replaced(found: re.Match[str]) -> str:
        name, _, value = found.groups()
        return _as_option(known[name], value) if name in known else found[0]

    return _ARGUMENT.sub(replaced, text)


def sentence(error: AmodalError, params: Iterable[click.Parameter]) -> str:
    """Returns an error's message with options of `params`; adds that of its `field` if it names none."""
    params = list(params)
    text = with_options(str(error), params)
    option = with_options(f"`{error.field}`", params)
    if text != str(error) or option.startswith("`"):
        return text
    return f"{text.removesuffix('.')} ({option})."


def _as_option(param: click.Parameter, value: str | None) -> str:
    if isinstance(param, click.Argument):
        return param.human_readable_name if value is None else f"{param.human_readable_name} {value}"
    names = param.secondary_opts if value == "False" else param.opts
    option = max(names or param.opts, key=len)
    return option if value in (None, "True", "False") else f"{option} {value}"
