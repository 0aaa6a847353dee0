"""`amodal bench compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from amodal.cli.console import SHARE, footnoted, in_options, print_json, table
from amodal.cli.options import json_option

if TYPE_CHECKING:
    from amodal.bench.comparison.changes import Change
    from amodal.bench.comparison.compare import Compared, Comparison


@click.command("compare")
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--fail-over", type=SHARE, help="Exit with 1 if anything got worse by more than this.")
@click.option(
    "--floor",
    type=SHARE,
    default="3%",
    help="Difference to allow for between two runs of the same thing on one machine.",
)
@click.option("--across-machines", is_flag=True, help="Compare even if the results come from two machines.")
@json_option("the comparison as JSON")
def command(
    before: str, after: str, fail_over: float | None, floor: float, across_machines: bool, as_json: bool
) -> None:
    """Show what got slower, larger or worse from BEFORE to AFTER, beyond noise.

    BEFORE and AFTER are results files of `amodal bench`, or folders with a results.json. Only measurements with the
    same settings are compared. A figure counts as changed if its 99 % interval, widened by the floor, excludes "no
    change". With --fail-over, the exit code is 1 if such a change for the worse is also larger than that limit. Peers,
    the machine's ceilings, and components that changed by less than 1 % of a clip are shown but never fail.

    \b
    Examples:
      amodal bench compare before.json after.json
      amodal bench compare main/ branch/ --fail-over 5%
      amodal bench compare before.json after.json --json
    """
    from amodal.bench.comparison.compare import compare_results
    from amodal.bench.schema import read_results

    found = compare_results(read_results(before), read_results(after), floor=floor, across_machines=across_machines)
    failures = [] if fail_over is None else found.failures(fail_over)
    if as_json:
        print_json(
            {
                **found.model_dump(),
                "fail_over": fail_over,
                "failures": [{"kind": measured.kind, "what": change.what} for measured, change in failures],
            }
        )
    else:
        click.echo("\n".join(_lines(found)).lstrip("\n"))
        if fail_over is not None:
            click.echo("\n".join(_conclusion(failures, f"{100 * fail_over:.3g} % beyond noise")))
    if failures:
        sys.exit(1)


def _lines(found: Comparison) -> Iterator[str]:
    yield from (in_options(f"Note: {note}") for note in found.notes)
    yield from (in_options(f"Not compared: {text}.") for text in found.unmatched)
    for measured in found.compared:
        about = "; ".join(filter(None, (measured.work, measured.executed)))
        yield f"\n{measured.kind}: {about}" if about else f"\n{measured.kind}"
        rows, notes = footnoted([_row(change) for change in measured.changes])
        if rows:
            yield table(("figure", "before", "after", "change", "interval", "verdict", ""), rows)
        yield from (in_options(f"Left out: {text}.") for text in measured.left_out)
        yield from notes


def _row(change: Change) -> list[str]:
    from amodal.bench.wording import DASH, quantity, relative_change

    return [
        change.what,
        quantity(change.before, change.unit),
        quantity(change.after, change.unit),
        relative_change(change.ratio),
        DASH if change.low is None else f"{relative_change(change.low)} to {relative_change(change.high)}",
        change.word,
        change.remark,
    ]


def _conclusion(failures: list[tuple[Compared, Change]], limit: str) -> Iterator[str]:
    from amodal.bench.wording import relative_change

    yield (
        f"\nFailed, worse by more than {limit}:"
        if failures
        else f"\nNothing that counts got worse by more than {limit}."
    )
    yield from (f"  {m.kind}, {c.what}: {c.word}, {relative_change(c.ratio)}" for m, c in failures)
