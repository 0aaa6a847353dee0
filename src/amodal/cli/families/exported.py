"""What `amodal export` prints of any family, and the options that its families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import component_table, print_json
from amodal.cli.options import combined, json_option, quiet_option
from amodal.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from amodal.export.bundle import Exported

family_option = click.option(
    "--family",
    metavar="NAME",
    default="diffusion-vas",
    help="Family of the checkpoints, diffusion-vas or sameo; see `amodal export --family sameo -h` for its options.",
)
writing_options = combined(
    click.option("--seed", type=int, default=0, help="With --random: seed of the weights."),
    click.option(
        "--check",
        type=click.Choice(["full", "small", "none"]),
        default="small",
        help="Compare each graph with torch: at its own size, at a small one if that is large, or not at all.",
    ),
    json_option("the table as JSON"),
    quiet_option("Print neither progress nor the table."),
)


def require_libraries(names: Sequence[str]) -> None:
    """Raises MissingDependencyError if one of the libraries that an export needs is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'export needs {", ".join(missing)}, not installed here; run `pip install "amodal[export]"`.'
        )


def report(rows: list[Exported], options: Mapping[str, Any]) -> None:
    """Prints a finished export: as JSON, as a table, or not at all."""
    if options["as_json"]:
        print_json({"bundle": options["out"], "components": [_as_json(row) for row in rows]})
    elif not options["quiet"]:
        click.echo(_text(rows))
        click.echo(f"Wrote {options['out']}")


def _as_json(row: Exported) -> dict[str, Any]:
    return {
        "component": row.key,
        **{name: getattr(row.entry, name) for name in ("precision", "parameters", "bytes", "difference")},
        "checked_at": list(row.check_size) if row.entry.difference is not None else None,
        "seconds": row.seconds,
    }


def _text(rows: list[Exported]) -> str:
    seconds = [f"{count:.1f}" for count in (*(row.seconds for row in rows), sum(row.seconds for row in rows))]
    places: dict[str, list[str]] = {}
    for row in rows:
        if row.entry.difference is not None:
            places.setdefault("x".join(map(str, row.check_size)), []).append(row.key)
    if not places:
        note = "No graph was compared with torch (--check none)."
    else:
        sizes = sorted(places, key=lambda size: -len(places[size]))
        others = "".join(f", {' and '.join(places[size])} at {size}" for size in sizes[1:])
        note = f"Difference: relative L2 to torch on random input, at {sizes[0]}{others}."
    return f"{component_table({row.key: row.entry for row in rows}, seconds=seconds)}\n{note}"
