"""`amodal bench compare`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import print_json, table

if TYPE_CHECKING:
    from amodal.bench.comparison.changes import Change
    from amodal.bench.comparison.compare import Compared, Comparison


class PercentType(click.ParamType):  # type: ignore[type-arg]  # no subscript before click 8.5
    """`5%` or `0.05`: a share."""

    name = "PERCENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            self.fail(f"{value!r} is no share; expected 0% to below 100%, for instance 5% or 0.05.", param, ctx)
        return share


@click.command("compare")
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--fail-over", type=PercentType(), help="Exit with 1 if anything got worse by more than this.")
@click.option(
    "--floor",
    type=PercentType(),
    default="3%",
    show_default=True,
    help="What two runs of the same thing may differ by on this machine.",
)
@click.option("--across-machines", is_flag=True, help="Compare although the results are of two machines.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    before: str, after: str, fail_over: float | None, floor: float, across_machines: bool, as_json: bool
) -> None:
    """What got slower, larger or worse from BEFORE to AFTER, noise taken into account.

    BEFORE and AFTER are results files of `amodal bench`, or folders with a results.json. Only what was measured
    alike is compared. A change is called one if its 99 % interval, with the floor between runs, leaves "no change" out.
    With --fail-over the exit code is 1 if one of these is also larger than the limit. Peers, the machine's
    ceilings and components that changed by less than 1 % of a clip are shown, but never fail.

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
        click.echo(_text(found))
        if fail_over is not None:
            click.echo(_conclusion(failures, fail_over))
    if failures:
        sys.exit(1)


def _text(found: Comparison) -> str:
    lines = [f"Note: {note}" for note in found.notes]
    lines += [f"Not compared: {text}." for text in found.unmatched]
    for measured in found.compared:
        about = "; ".join(part for part in (measured.work, measured.executed) if part)
        lines += ["", f"{measured.kind}: {about}" if about else measured.kind]
        if measured.changes:
            head = ("figure", "before", "after", "change", "interval", "verdict", "")
            lines.append(table(head, [_row(change, _footnotes(measured)) for change in measured.changes]))
        lines += [f"Left out: {text}." for text in measured.left_out]
        lines += [f"[{number}] {text}." for text, number in _footnotes(measured).items()]
    return "\n".join(lines).lstrip("\n")


def _footnotes(measured: Compared) -> dict[str, int]:
    remarks = dict.fromkeys(change.remark for change in measured.changes if change.remark)
    return {text: number for number, text in enumerate(remarks, 1)}


def _row(change: Change, footnotes: dict[str, int]) -> list[str]:
    from amodal.bench.wording import DASH, quantity
    from amodal.bench.wording import relative_change as shown

    return [
        change.what,
        quantity(change.before, change.unit),
        quantity(change.after, change.unit),
        shown(change.ratio),
        DASH if change.low is None else f"{shown(change.low)} to {shown(change.high)}",
        change.word,
        f"[{footnotes[change.remark]}]" if change.remark else "",
    ]


def _conclusion(failures: list[tuple[Compared, Change]], limit: float) -> str:
    from amodal.bench.wording import relative_change as shown

    if not failures:
        return f"\nNothing that counts got worse by more than {100 * limit:.3g} % beyond noise."
    lines = [f"\nFailed, worse by more than {100 * limit:.3g} % beyond noise:"]
    lines += [f"  {m.kind}, {c.what}: {c.word}, {shown(c.ratio)}" for m, c in failures]
    return "\n".join(lines)
