"""`amodal bench all`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from amodal.cli.console import BytesType, warn

from .options import ABOVE_ZERO, backend_options, checkpoint_options, work_options


@click.command("all")
@click.argument("bundle")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--only", "parts", multiple=True, metavar="PART", help="latency, memory, ... (repeat). Default: all.")
@click.option("--quick", is_flag=True, help="Fewer clips and scenes: a look, not a measurement.")
@click.option("--fresh", is_flag=True, help="Measure again what DIR has already, which is removed first.")
@checkpoint_options("Checkpoint, for peers and other sizes; default: the bundle's own.")
@click.option("--target-spf", type=ABOVE_ZERO, metavar="S", help="Exit with 1 if all take more seconds a frame.")
@click.option("--target-vram", type=BytesType(), help="Exit with 1 if all take more memory.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json to standard output.")
@work_options()
@backend_options()
def command(bundle: str, **options: Any) -> None:
    """Everything this machine allows: results.json, report.html and summary.md.

    Parts are kept as they are done: interrupted, the same command goes on where it was. What other libraries or
    engines measured, or what was skipped for want of them, is measured again.

    \b
    Examples:
      amodal bench all default -o report
      amodal bench all bundle -o report --backend tensorrt_rtx --target-spf 0.95 --target-vram 8GB
      amodal bench all bundle -o report --only latency --only memory
    """
    from amodal.bench.report import write_report
    from amodal.bench.report.drawing import require_libraries
    from amodal.bench.schema import Results
    from amodal.bench.suite import PARTS, SuiteOptions, run_suite
    from amodal.runtime.families import Bundle

    from .output import checkpoints_from, execution_from, hold_to_targets, noting, work_from, write_results

    require_libraries("matplotlib", "jinja2")  # before anything is measured
    out: Path = options["out"]
    opened = Bundle(bundle)
    suite = SuiteOptions(
        work=work_from(opened, options),
        execution=execution_from(options),
        parts=options["parts"] or PARTS,
        quick=options["quick"],
        checkpoints=checkpoints_from(options),
    )

    def keep(results: Results) -> None:
        write_results(results, out / "results.json")
        write_report(results, out)

    try:
        with noting("bench", options["as_json"]) as progress:
            results = run_suite(bundle, out, suite, fresh=options["fresh"], progress=progress, keep=keep)
    except KeyboardInterrupt:
        click.echo(f"Interrupted; {out} keeps what was measured, and the same command goes on.", err=True)
        raise click.exceptions.Exit(130) from None
    if options["as_json"]:
        click.echo(results.model_dump_json(indent=2))
    else:
        click.echo((out / "summary.md").read_text())
        click.echo(f"Wrote {out}: results.json, report.html, summary.md")
    warn([f"{skipped.what} was skipped: {skipped.reason}" for skipped in results.skipped])
    hold_to_targets(results.measurements, options)
