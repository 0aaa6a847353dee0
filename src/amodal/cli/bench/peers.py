"""`amodal bench peers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import table, warn
from amodal.cli.options import (
    COUNT,
    bundle_argument,
    checkpoint_options,
    execution_options,
    output_options,
    work_options,
)

if TYPE_CHECKING:
    from amodal.bench.schema import Peers, Skipped


@click.command("peers")
@bundle_argument
@click.option("--repeats", type=COUNT, default=5, help="Turns to measure.")
@click.option(
    "--peer",
    "only",
    multiple=True,
    metavar="NAME",
    help="diffusers, compile (torch.compile), bfloat16 (diffusers, on a CPU), or a backend (repeatable). Default: all "
    "but bfloat16.",
)
@checkpoint_options()
@work_options
@execution_options(backend=False)
@output_options
def command(**options: Any) -> None:
    """Run the same clip in diffusers, eager and compiled, and on each backend of amodal that runs here.

    Each peer has a process of its own. Clips are run in turns, and each result is compared with the first peer's before
    any time is shown. Ratios are of the seconds of one turn: their median, minimum and maximum. The exit code is 1 if a
    peer's result differs.

    Peers are compared on the GPU if there is one, with torch in half precision; on a CPU, in float32. All hold their
    weights at the same time: if memory is short, choose with --peer. Only diffusers needs torch:
    pip install "amodal[bench,export]".

    \b
    Examples:
      amodal bench peers bundle --segment ckpt/ --complete ckpt2/
      amodal bench peers bundle --peer diffusers --peer onnxruntime --steps 5
      amodal bench peers bundle --device cuda --repeats 10 -o peers.json
    """
    from amodal.bench.peers.measure import measure_peers
    from amodal.bench.schema import Peers

    from .output import emit, measure

    settings = {"repeats": options["repeats"], "only": options["only"] or None}
    measured, skipped = measure("peers", measure_peers, options, **settings)
    found = next((m for m in measured if isinstance(m, Peers)), None)
    emit(found, options, ["No peer could run."] if found is None else _ratios(found), skipped)
    warn([_reason(what) for what in skipped])
    if found is None or found.refused:
        raise click.exceptions.Exit(1)


def _ratios(measured: Peers) -> list[str]:
    """Ratios of time and memory of all pairs."""
    from amodal.bench.peers.measure import memory_ratio, time_ratio

    names = [peer.name for peer in measured.peers]
    rows = []
    for name, base in [(name, base) for i, base in enumerate(names) for name in names[i + 1 :]]:
        ratio = time_ratio(measured, name, base)
        times = [f"{ratio.median:.3f}", f"{ratio.least:.3f} to {ratio.most:.3f}", f"{ratio.of_medians:.3f}"]
        rows.append([f"{name} / {base}", *times, f"{memory_ratio(measured, name, base):.3f}"])
    return [table(["time", "median of turns", "least to most", "of medians", "memory"], rows)] if rows else []


def _reason(skipped: Skipped) -> str:
    named = " ".join(skipped.remedy.split()[:2]) in skipped.reason
    return f"{skipped.what} was left out: {skipped.reason}" + ("" if named else f" Try `{skipped.remedy}`.")
