"""Checks everything that only a GPU can show: `python -m amodal.bench.gpu_check -o DIR`.

Finds the backends that work here, runs the tests marked `gpu`, runs the real architecture with random weights beside
the reference pipeline in diffusers, and measures time, memory and the share of the ceiling. Each step runs in its own
process with a time limit, and its result is saved at once: after an interruption, the same command continues. DIR gets
gpu_check.json, gpu_check.md, and steps/ with the output of each step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import click
from pydantic import ValidationError

from amodal.runtime.errors import AmodalError
from amodal.runtime.progress import Progress, silent

from ..running.files import write_whole
from ..running.machine import this_machine, versions
from ..schema import Machine, Results
from .plan import CheckOptions, plan
from .steps import Step, StepState, run_steps
from .summary import Check, summary_of


def run_check(options: CheckOptions, minutes: float, *, fresh: bool = False, progress: Progress = silent) -> Check:
    """Runs the steps; `gpu_check.json` and `gpu_check.md` are rewritten after each.

    Args:
        minutes: for all steps together.
        fresh: repeat the steps that are done.

    Raises:
        OutputError: the folder cannot be written.
    """
    machine = this_machine()
    # Other versions of the libraries may run other backends, at another speed.
    identity = f"{machine.fingerprint} {json.dumps(versions(), sort_keys=True)}"

    def save_and_plan(states: Mapping[str, StepState]) -> list[Step]:
        check = check_of(machine, states)
        write_whole(options.folder / "gpu_check.json", check.model_dump_json(indent=2))
        write_whole(options.folder / "gpu_check.md", summary_of(check))
        return plan(options, states)

    return check_of(
        machine, run_steps(save_and_plan, options.folder, 60 * minutes, identity, fresh=fresh, progress=progress)
    )


def check_of(machine: Machine, states: Mapping[str, StepState]) -> Check:
    """Collects the outputs of the steps."""
    outputs = {name: state.output for name, state in states.items()}
    results: dict[str, Results] = {}
    for name, output in outputs.items():
        if isinstance(output, dict) and "measurements" in output:
            try:
                results[name] = Results.model_validate(output)
            except ValidationError:
                continue  # of another version; the output is still in `steps/`
    tests = {name.removeprefix("tests "): output for name, output in outputs.items() if name.startswith("tests ")}
    return Check(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine,
        steps=[state.model_copy(update={"output": None}) for state in states.values()],
        probe=outputs.get("probe"),
        tests={backend: output for backend, output in tests.items() if output is not None},
        options=outputs.get("options onnxruntime"),
        arrays=outputs.get("arrays cupy"),
        eager=outputs.get("eager torch"),
        results=results,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--bundle", metavar="BUNDLE", help="Run this bundle instead of exporting the real architecture.")
@click.option("--quick", is_flag=True, help="The default bundle and few steps: does it work, not how fast is it.")
@click.option("--minutes", type=float, default=8.0, show_default=True, help="For all steps together.")
@click.option(
    "--stage",
    type=click.Choice(["a", "b"]),
    help="A short check for a machine lent for minutes: a, what runs with torch and CuPy alone; b, ONNX Runtime.",
)
@click.option("--fresh", is_flag=True, help="Repeat what an earlier check in this folder has done.")
def main(
    out: Path, bundle: str | None, quick: bool, minutes: float, stage: Literal["a", "b"] | None, fresh: bool
) -> None:
    """Runs a GPU check; see the module."""
    try:
        check = run_check(CheckOptions(out.resolve(), bundle, quick, stage), minutes, fresh=fresh, progress=_echo)
    except AmodalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"Interrupted; the finished steps are in {out}, and the same command continues.", err=True)
        sys.exit(130)
    click.echo(summary_of(check))
    click.echo(f"Wrote {out / 'gpu_check.json'} and {out / 'gpu_check.md'}.", err=True)


def _echo(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
    click.echo(f"{what} ({phase})", err=True)


if __name__ == "__main__":
    main()
