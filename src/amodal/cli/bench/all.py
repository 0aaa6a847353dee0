"""`amodal bench all`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from amodal.cli.console import BYTES
from amodal.cli.options import (
    ABOVE_ZERO,
    bundle_argument,
    checkpoint_options,
    execution_options,
    json_option,
    work_options,
)


@click.command("all")
@bundle_argument
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--only", "parts", multiple=True, metavar="PART", help="latency, memory, ... (repeatable). Default: all.")
@click.option("--quick", is_flag=True, help="Run fewer clips and scenes, for a rough impression.")
@click.option("--fresh", is_flag=True, help="Delete the results in DIR and measure them again.")
@checkpoint_options("Checkpoint of the segment stage, for peers and other sizes")
@click.option("--target-spf", type=ABOVE_ZERO, metavar="S", help="Exit with 1 if every backend takes more s/frame.")
@click.option("--target-vram", type=BYTES, help="Exit with 1 if every backend takes more memory.")
@json_option("results.json")
@work_options
@execution_options()
def command(bundle: str, **options: Any) -> None:
    """Run all benchmarks that this machine allows; write results.json, report.html, summary.md.

    Each part is saved when it is done: after an interruption, the same command continues. Parts that need other
    libraries or engines are measured again, whether they were measured or skipped.

    \b
    Examples:
      amodal bench all default -o report
      amodal bench all bundle -o report --backend tensorrt_rtx \\
          --target-spf 0.95 --target-vram 8GB
      amodal bench all bundle -o report --only latency --only memory
    """
    from amodal.bench.report import write_report
    from amodal.bench.report.drawing import require_libraries
    from amodal.bench.schema import Results
    from amodal.bench.suite import PARTS, SuiteOptions, run_suite
    from amodal.cli.progress import activity
    from amodal.runtime.families import Bundle

    from .output import check_targets, checkpoints_from, execution_from, whole, worded, work_from, write_results

    require_libraries("matplotlib", "jinja2")  # before anything is measured
    out: Path = options["out"]
    suite = SuiteOptions(
        work=work_from(Bundle(bundle), options),
        execution=execution_from(options),
        parts=options["parts"] or PARTS,
        quick=options["quick"],
        checkpoints=checkpoints_from(options),
    )

    def keep(results: Results) -> None:
        results = results.model_copy(update={"skipped": worded(results.skipped)})
        write_results(results, out / "results.json")
        write_report(results, out)

    try:
        with activity(options["as_json"], "bench") as progress:
            results = run_suite(bundle, out, suite, fresh=options["fresh"], progress=progress, keep=keep)
    except KeyboardInterrupt:
        click.echo(f"Interrupted; {out} keeps the results so far, and the same command continues.", err=True)
        raise click.exceptions.Exit(130) from None
    if options["as_json"]:
        click.echo((out / "results.json").read_text(), nl=False)
    else:
        shown = results.model_copy(update={"skipped": worded(results.skipped)})
        click.echo("\n\n".join(whole(shown)))
        click.echo(f"\nWrote {out}: results.json, report.html, summary.md")
    check_targets(results.measurements, options)
