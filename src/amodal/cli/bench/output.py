"""What is done with results: a file, standard output, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from amodal.bench.measures.targets import missed_targets
from amodal.bench.report.document import Section, Table
from amodal.bench.report.overview import document
from amodal.bench.running.clips import Execution
from amodal.bench.running.files import write_whole
from amodal.bench.running.machine import results_of, work_of
from amodal.bench.running.sources import Checkpoints
from amodal.bench.schema import Measurement, Results, Skipped, Work
from amodal.bench.wording import DASH
from amodal.cli.console import footnoted, in_options, settings_from, table, warn
from amodal.cli.progress import activity
from amodal.runtime.families import Bundle

_T = TypeVar("_T")
_LONGEST_CELL = 40


def work_from(bundle: Bundle, options: Mapping[str, Any]) -> Work:
    """The work that `work_options` ask for."""
    return work_of(bundle, **{name: options[name] for name in ("stage", "steps", "guidance", "churn", "seed")})


def execution_from(options: Mapping[str, Any]) -> Execution:
    """The execution that `execution_options` ask for."""
    return settings_from(Execution, options)


def checkpoints_from(options: Mapping[str, Any]) -> Checkpoints:
    """The checkpoints that `checkpoint_options` ask for."""
    return {"segment": options["segment"], "complete": options["complete"]}


def measure(name: str, function: Callable[..., _T], options: Mapping[str, Any], **settings: Any) -> _T:
    """Calls a function that measures `options["bundle"]`, with the checkpoints if any, and shows its progress."""
    bundle = options["bundle"]
    work = work_from(Bundle(bundle), options)
    if "segment" in options:
        settings["checkpoints"] = checkpoints_from(options)
    with activity(options["as_json"], name) as progress:
        return function(bundle, work, execution_from(options), progress=progress, **settings)


def emit(
    measurement: Measurement | None,
    options: Mapping[str, Any],
    more: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
) -> None:
    """Writes the results file (`-o`), prints it (`--json`) or its tables and then `more`, and checks the targets."""
    measurements = [] if measurement is None else [measurement]
    results = results_of(Bundle(options["bundle"]), measurements, worded(skipped))
    out, as_json = options["out"], options["as_json"]
    try:
        if out is not None:
            write_results(results, out)
    finally:  # even if the disk is full, what was measured is shown
        click.echo(results.model_dump_json(indent=2) if as_json else "\n\n".join([*_tables(results), *more]))
    if out is not None and not as_json:
        click.echo(f"Wrote {out}")
    warn(getattr(measurement, "warnings", ()))
    check_targets(measurements, options)


def whole(results: Results) -> Iterator[str]:
    """Everything in a results file as paragraphs: headline figures, every table, and each thing not measured, once."""
    found = document(results)
    if found.cards:
        yield _heading("At a glance")
        yield table(["figure", "measured", ""], found.cards, 3)
    yield from found.context
    for section in found.sections:
        yield _heading(section.kind.capitalize())
        yield from _paragraphs(section)
        yield from (f"Warning: {text}" for text in section.warnings)
    skipped = [skip.said for skip in results.skipped]
    missing = [f"Not in this file: {', '.join(found.missing)}."] if found.missing else []
    if skipped or missing:
        yield _heading("Not measured")
        yield "\n".join([*skipped, *missing])


def _heading(text: str) -> str:
    return click.style(text, bold=True)


def worded(skipped: Sequence[Skipped]) -> list[Skipped]:
    """Returns what was skipped with reasons that name the command's options."""
    return [skip.model_copy(update={"reason": in_options(skip.reason)}) for skip in skipped]


def _tables(results: Results) -> Iterator[str]:
    for section in document(results).sections:
        yield from _paragraphs(section)


def _paragraphs(section: Section) -> Iterator[str]:
    yield section.lead
    yield from filter(None, map(_shown, section.tables))
    yield in_options("\n".join(section.notes))


def _shown(found: Table) -> str:
    """A table of the report as text, a single row as lines of a name and a value; empty if it has no values."""
    caption = f"{found.basis.capitalize()}. {found.caption}"
    if len(found.rows) > 1:
        rows, notes = footnoted(found.rows, _LONGEST_CELL)
        return "\n".join([caption, table(found.head, rows, found.texts), *notes])
    pairs = [pair for row in found.rows for pair in zip(found.head, row, strict=True) if pair[1] != DASH]
    width = max(map(len, found.head))
    lines = [f"  {name:<{width}}  {value}" for name, value in pairs]
    return "\n".join([caption, *lines]) if len(lines) > found.texts else ""


def check_targets(measurements: Sequence[Measurement], options: Mapping[str, Any]) -> None:
    """Warns of each target (`--target-spf`, `--target-vram`) that was missed; the exit code is then 1."""
    missed = missed_targets(measurements, spf=options.get("target_spf"), vram=options.get("target_vram"))
    warn(missed)
    if missed:
        raise click.exceptions.Exit(1)


def write_results(results: Results, file: Path) -> None:
    """Writes a results file whole or not at all; raises OutputError."""
    write_whole(file, results.model_dump_json(indent=2) + "\n")
