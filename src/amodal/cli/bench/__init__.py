"""`amodal bench`."""

from __future__ import annotations

import click

from amodal.cli.lazy import LazyGroup

_COMMANDS = {
    "all": "Run all benchmarks that this machine allows; write a report.",
    "latency": "Seconds per frame and clip, by component and step; cold start.",
    "memory": "Memory over time, beside the plan's prediction.",
    "fidelity": "Latents, frames and masks against a float32 run, by step.",
    "quality": "Quality and time of each preset, on drawn scenes.",
    "peers": "The same clip in diffusers, eager and compiled, and here.",
    "roofline": "Distance from this machine's limits; predictions for GPUs.",
    "stream": "Age of results, drops and memory of a stream at a rate.",
    "scaling": "Growth of time and memory with frames, size, steps, samples.",
    "compare": "What changed between two results files, beyond noise.",
    "report": "Write the report of a results file again.",
}


@click.group(cls=LazyGroup, package="amodal.cli.bench", summaries=_COMMANDS)
def command() -> None:
    """Measure time, memory, fidelity and quality of a bundle on this machine.

    \b
    Examples:
      amodal bench latency default
      amodal bench all bundle -o report --target-spf 0.95 --target-vram 8GB
      amodal bench compare before.json after.json --fail-over 5%
    """
