"""Everything that only a GPU can show, in one command: `python -m amodal.bench.gpu_check.__main__ -o DIR`.

It says which backends execute here, runs the tests marked `gpu`, runs the real architecture with random weights beside
the reference pipeline in diffusers, and records time, memory and the share of the ceiling. Each step is a process of
its own with a time limit; its result is kept at once, so that the command can be cut off and given again. DIR gets
gpu_check.json, gpu_check.md, and steps/ with what each step said.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import click
from pydantic import JsonValue, ValidationError
from rich.console import Console

from amodal.runtime.errors import AmodalError

from ..running.files import write_whole
from ..running.machine import this_machine, versions
from ..schema import SCHEMA_VERSION, Machine, Record, Results
from .plan import CheckOptions, plan
from .steps import Plan, Say, Step, StepState, run_steps
from .summary import summary_of


class Check(Record):
    """A GPU check's file.

    Attributes:
        created: UTC, ISO 8601. versions: of amodal and the libraries.
        probe: what `amodal doctor --gpu` finds; None if it was not reached.
        tests: outcomes by backend: `passed`, `failed`, `skipped`, `failures`, `reasons`.
        steps: what became of each, without what it said, which is in `steps/`.
        options: of `bench/studies/gpu_options.py`, a row per case; None if it was not reached.
        results: of the benchmarks, by step.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    machine: Machine
    steps: list[StepState]
    probe: JsonValue = None
    tests: dict[str, JsonValue]
    options: JsonValue = None
    results: dict[str, Results]


def run_check(
    options: CheckOptions,
    minutes: float,
    *,
    fresh: bool = False,
    say: Say = lambda step: None,
    planned: Plan | None = None,
) -> Check:
    """Runs the steps and writes `gpu_check.json` and `gpu_check.md`, after each step anew.

    Args:
        minutes: for all of them together.
        fresh: run again what is done.
        planned: other steps than a check's.

    Raises:
        OutputError: the folder cannot be written.
    """
    machine = this_machine()
    # Another library may run what this one does not, and at another speed.
    kept_for = f"{machine.fingerprint} {json.dumps(versions(), sort_keys=True)}"

    def asked(states: Mapping[str, StepState]) -> list[Step]:
        _write(options.folder, check_of(machine, states))
        return planned(states) if planned is not None else plan(options, states)

    states = run_steps(asked, options.folder, 60 * minutes, kept_for, fresh=fresh, say=say)
    check = check_of(machine, states)
    _write(options.folder, check)
    return check


def check_of(machine: Machine, states: Mapping[str, StepState]) -> Check:
    """The file, from what the steps said."""
    results: dict[str, Results] = {}
    for name, state in states.items():
        if isinstance(state.said, dict) and "measurements" in state.said:
            try:
                results[name] = Results.model_validate(state.said)
            except ValidationError:
                continue  # of another version; what it said is still in `steps/`
    return Check(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine,
        steps=[state.model_copy(update={"said": None}) for state in states.values()],
        probe=states["probe"].said if "probe" in states else None,
        tests={
            name.removeprefix("tests "): state.said
            for name, state in states.items()
            if name.startswith("tests ") and state.said is not None
        },
        options=states["options onnxruntime"].said if "options onnxruntime" in states else None,
        results=results,
    )


def _write(folder: Path, check: Check) -> None:
    write_whole(folder / "gpu_check.json", check.model_dump_json(indent=2))
    write_whole(folder / "gpu_check.md", summary_of(check.model_dump(), check.results))


@contextmanager
def _telling() -> Iterator[Say]:
    """On a terminal a line that changes, else one line per step."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda step: click.echo(f"{step.name} (at most {step.limit:.0f} s)", err=True)
        return
    with console.status("looking") as status:
        yield lambda step: status.update(f"{step.name} (at most {step.limit:.0f} s)")


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--bundle", metavar="BUNDLE", help="Run this one instead of exporting the real architecture.")
@click.option("--quick", is_flag=True, help="The default bundle and few steps: whether it works, not how fast.")
@click.option("--minutes", type=float, default=8.0, show_default=True, help="For everything together.")
@click.option("--fresh", is_flag=True, help="Run again what an earlier check in this folder has done.")
def main(out: Path, bundle: str | None, quick: bool, minutes: float, fresh: bool) -> None:
    """See the module."""
    try:
        with _telling() as say:
            check = run_check(CheckOptions(out.resolve(), bundle, quick), minutes, fresh=fresh, say=say)
    except AmodalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"Stopped; what was done is in {out}, and the same command goes on from there.", err=True)
        sys.exit(130)
    click.echo(summary_of(check.model_dump(), check.results))
    click.echo(f"Wrote {out / 'gpu_check.json'} and {out / 'gpu_check.md'}.", err=True)


if __name__ == "__main__":
    main()
