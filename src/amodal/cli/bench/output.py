"""What becomes of results: a file, standard output, an exit code; and progress while they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from amodal.bench.measures.targets import missed_targets
from amodal.bench.running.clips import Execution
from amodal.bench.running.files import write_whole
from amodal.bench.running.machine import results_of, work_of
from amodal.bench.running.sources import Checkpoints
from amodal.bench.schema import Measurement, Results, Skipped, Work
from amodal.cli.console import warn
from amodal.cli.progress import Watcher
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress


def work_from(bundle: Bundle, options: Mapping[str, Any]) -> Work:
    """The work that `work_options` asked for."""
    return work_of(bundle, **{name: options[name] for name in ("stage", "steps", "guidance", "churn", "seed")})


def execution_from(options: Mapping[str, Any]) -> Execution:
    """The execution that `backend_options` asked for."""
    return Execution(**{name: options[name] for name in Execution.__dataclass_fields__ if name in options})


def checkpoints_from(options: Mapping[str, Any]) -> Checkpoints:
    """The checkpoints that `checkpoint_options` asked for."""
    return {"segment": options["segment"], "complete": options["complete"]}


def emit(
    bundle: Bundle,
    measurement: Measurement | None,
    options: Mapping[str, Any],
    text: Callable[[], str],
    skipped: tuple[Skipped, ...] = (),
) -> None:
    """Writes the results file (`-o`), and prints it (`--json`) or `text`."""
    results = results_of(bundle, [] if measurement is None else [measurement], skipped)
    out = options.get("out")
    try:
        if out is not None:
            write_results(results, out)
    finally:  # what was measured is shown, even if the disk is full
        click.echo(results.model_dump_json(indent=2) if options.get("as_json") else text())
    if out is not None and not options.get("as_json"):
        click.echo(f"Wrote {out}")


def hold_to_targets(measurements: Sequence[Measurement], options: Mapping[str, Any]) -> None:
    """Warns of each target (`--target-spf`, `--target-vram`) that was missed; the exit code is 1 if any was.

    Raises:
        InputError: a target of 0 or less.
    """
    missed = missed_targets(measurements, spf=options.get("target_spf"), vram=options.get("target_vram"))
    warn(missed)
    if missed:
        raise click.exceptions.Exit(1)


def write_results(results: Results, file: Path) -> None:
    """Writes a results file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(file, results.model_dump_json(indent=2) + "\n")


@contextmanager
def noting(name: str, quiet: bool = False) -> Iterator[Progress]:
    """A line of progress on standard error; yields what reports how far things are."""
    watcher = Watcher(quiet)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=watcher.console, disable=watcher.hidden, transient=True) as bars:
        task = bars.add_task(name, total=None)

        def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
            bars.update(task, description=f"{name}: {what}", completed=done, total=total)

        yield report
