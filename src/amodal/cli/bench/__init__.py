"""`amodal bench`."""

from __future__ import annotations

import click

from amodal.cli.lazy import lazy_group

_COMMANDS = {
    "all": "Everything this machine allows: results.json, report.html and a summary.",
    "latency": "Seconds per frame and per clip, by component and step; cold start apart.",
    "memory": "Memory over time, its peak, and the plan's prediction beside it.",
    "fidelity": "Latents, frames and masks against a float32 run, step by step.",
    "quality": "What presets cost and give: mIoU on scenes whose truth is known, against time.",
    "peers": "The same work in diffusers, eager and compiled, side by side with ours.",
    "roofline": "FLOPs and bytes, this machine's ceilings, and what a GPU would take at the least.",
    "scaling": "How time and memory grow with frames, resolution, steps and samples.",
    "compare": "What got slower between two results files, noise taken into account.",
    "report": "The report again, from a results file.",
}


@click.group(
    cls=lazy_group("amodal.cli.bench", _COMMANDS),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Time, memory, fidelity and quality of a bundle on this machine.

    \b
    Examples:
      amodal bench latency default
      amodal bench all bundle -o report --target-spf 0.95 --target-vram 8GB
      amodal bench compare before.json after.json --fail-over 5%
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
