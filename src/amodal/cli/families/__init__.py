"""The family-specific part of the command line.

A family's package here has the modules `run` and `export`, each with a click command named `command`, and `about`, with
what `amodal inspect` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from amodal.runtime.errors import AmodalError, InputError

if TYPE_CHECKING:
    from amodal.runtime.execution.run import Run
    from amodal.runtime.families import Bundle

_PACKAGES = {"diffusion-vas": "amodal.cli.families.diffusion_vas", "sameo": "amodal.cli.families.sameo"}
"""A family's name in the manifest -> its package. The first one is the default if the arguments name no bundle."""


class FamilyCommand(click.Command):
    """A command that runs the one of the family whose bundle is among the arguments."""

    def __init__(self, name: str) -> None:
        usual = _command_of(name, next(iter(_PACKAGES)))
        super().__init__(name, params=usual.params, help=usual.help, callback=usual.callback)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See click."""
        found = _family_among(args)
        family = found or next(iter(_PACKAGES))
        try:
            return self._context_of(family, info_name, args, parent, extra)
        except click.NoSuchOption as error:
            others = _families_with(str(self.name), error.option_name, family)
            if not others:
                raise
            if found is None:  # there is no bundle, which the command says that has the option
                return self._context_of(others[0], info_name, args, parent, extra)
            raise InputError(
                f"{error.option_name} is an option for bundles of the family {' or '.join(others)}, and this one is of "
                f"{family}; give a bundle of that family, or the options of `amodal {self.name} BUNDLE --help`."
            ) from error

    def _context_of(
        self, family: str, info_name: str | None, args: list[str], parent: click.Context | None, extra: dict[str, Any]
    ) -> click.Context:
        chosen = _command_of(str(self.name), family)
        self.params = chosen.params
        return chosen.make_context(info_name, list(args), parent, **extra)


class ExportCommand(FamilyCommand):
    """`amodal export`: no bundle names a family yet, so that --family does."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See click."""
        family = _family_asked(args)
        if family not in _PACKAGES:
            raise InputError(f"there is no family {family!r}; expected one of {', '.join(_PACKAGES)}.", field="family")
        chosen = _command_of(str(self.name), family)
        self.params = chosen.params
        return chosen.make_context(info_name, args, parent, **extra)


def command_for(name: str, bundle: str) -> click.Command:
    """Returns the command called `name` of the family of the bundle at a path."""
    return _command_of(name, _family_among([bundle]) or next(iter(_PACKAGES)))


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Returns a bundle's `config` as rows of a name and a value; unchanged for a family without a package."""
    about = _about(bundle)
    rows: list[tuple[str, str]] = about.describe(bundle) if about else []
    return rows if about else [(name, str(value)) for name, value in bundle.manifest.config.items()]


def run_to_plan(bundle: Bundle, options: Mapping[str, Any]) -> Run:
    """Returns the run that `amodal inspect --memory` plans for, from its options `stage` and `size`.

    Raises:
        InputError: a size is given for a family without a package.
    """
    from amodal.runtime.execution.run import Run

    stage, size, about = options["stage"], options["size"], _about(bundle)
    tasks = () if stage in (None, "both") else (stage,)
    if size is not None and not about:
        raise InputError(f"the family {bundle.manifest.family} plans for the bundle's own size.", field="size")
    run: Run = about.run_to_plan(tasks, size) if about else Run(tasks)
    return run


def _about(bundle: Bundle) -> Any:
    package = _PACKAGES.get(bundle.manifest.family)
    return package and import_module(f"{package}.about")


def _command_of(name: str, family: str) -> click.Command:
    if family not in _PACKAGES:
        raise InputError(
            f"`amodal {name}` has no options for the family {family}; use it from Python, as docs/embedding.md shows."
        )
    found: click.Command = import_module(f"{_PACKAGES[family]}.{name}").command
    return found


def _families_with(name: str, option: str, but: str) -> list[str]:
    """Returns the families, without `but`, whose command has an option."""
    found = []
    for family in _PACKAGES:
        params = () if family == but or not _has(name, family) else _command_of(name, family).params
        if any(option in (*param.opts, *param.secondary_opts) for param in params):
            found.append(family)
    return found


def _has(name: str, family: str) -> bool:
    return find_spec(f"{_PACKAGES[family]}.{name}") is not None


def _family_among(args: list[str]) -> str | None:
    """Returns the family of the first argument that is a bundle; None if there is none or it is unreadable."""
    from amodal.runtime.bundle.manifest import MANIFEST_NAME
    from amodal.runtime.bundle.reading import find_bundle, read_manifest

    for argument in args:
        if not argument.startswith("-") and (find_bundle(argument) / MANIFEST_NAME).is_file():
            try:
                return read_manifest(find_bundle(argument)).family
            except AmodalError:  # the command itself reports it
                break
    return None


def _family_asked(args: list[str]) -> str:
    """Returns the value of the last --family; the default if there is none."""
    family = next(iter(_PACKAGES))
    for option, value in zip(args, [*args[1:], ""], strict=True):
        if option == "--family":
            family = value
        elif option.startswith("--family="):
            family = option.partition("=")[2]
    return family
