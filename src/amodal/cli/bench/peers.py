"""`amodal bench peers`."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import human_bytes, table, warn

from .options import backend_options, checkpoint_options, output_options, work_options

if TYPE_CHECKING:
    from amodal.bench.schema import Peers, Skipped


@click.command("peers")
@click.argument("bundle")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Turns that count.")
@click.option(
    "--peer",
    "only",
    multiple=True,
    metavar="NAME",
    help="diffusers, compile (torch.compile), bfloat16 (diffusers, on a CPU), or a backend (repeat). Default: all but "
    "bfloat16.",
)
@checkpoint_options()
@work_options()
@backend_options(choose=False)
@output_options()
def command(bundle: str, **options: Any) -> None:
    """The same clip by diffusers, eager and compiled, and by every backend of ours that runs here.

    Each has a process of its own; clips are run in turns, and what each draws is held against the first before any
    time is shown. Ratios are of the seconds of one turn: their median, and the least and most. The exit code is 1 if a
    peer drew something else.

    Peers are compared on the GPU if there is one, torch in half precision then; on a CPU in float32. All of them hold
    their weights at once: where memory is short, choose with --peer. Torch is needed for diffusers alone:
    pip install "amodal[bench,export]".

    \b
    Examples:
      amodal bench peers bundle --segment ckpt/ --complete ckpt2/
      amodal bench peers bundle --peer diffusers --peer onnxruntime --steps 5
      amodal bench peers bundle --device cuda --repeats 10 -o peers.json
    """
    from amodal.bench.peers.measure import measure_peers
    from amodal.bench.schema import Peers
    from amodal.runtime.families import Bundle

    from .output import checkpoints_from, emit, execution_from, noting, work_from

    opened = Bundle(bundle)
    with noting("peers", options["as_json"]) as progress:
        measured, skipped = measure_peers(
            bundle,
            work_from(opened, options),
            execution_from(options),
            repeats=options["repeats"],
            checkpoints=checkpoints_from(options),
            only=options["only"] or None,
            progress=progress,
        )
    found = next((m for m in measured if isinstance(m, Peers)), None)
    shown = "No peer could run." if found is None else text(found)
    emit(opened, found, options, lambda: shown, tuple(skipped))
    warn([_why(what) for what in skipped])
    if found is None or found.refused:
        raise click.exceptions.Exit(1)


def text(measured: Peers) -> str:
    """The tables of a comparison of peers."""
    from amodal.bench.peers.measure import memory_ratio, time_ratio

    work, peers = measured.work, measured.peers
    height, width = work.size
    turns = len(peers[0].seconds) if peers else 0
    head = (
        f"{' + '.join(work.stages)}, {work.frames} frames of {height}x{width}, {work.steps} steps, guidance "
        f"{work.guidance:g}, arrays prepared; {turns} turns"
    )
    rows = [
        [
            peer.name,
            f"{peer.first:.3f}",
            f"{median(peer.seconds):.3f}",
            f"{median(peer.seconds) / work.frames:.4f}",
            human_bytes(peer.host_peak),
            *(
                (human_bytes(peer.device_peak) if peer.device_peak else "-",)
                if any(p.device_peak for p in peers)
                else ()
            ),
        ]
        for peer in peers
    ]
    columns = ["peer", "first clip, s", "clip, median s", "s/frame", "host peak"]
    columns += ["GPU peak"] if any(p.device_peak for p in peers) else []
    blocks = [head, table(columns, rows)]
    pairs = [(peer, base) for i, base in enumerate(peers) for peer in peers[i + 1 :]]
    if pairs:
        lines = []
        for peer, base in pairs:
            ratio = time_ratio(peer, base)
            lines.append(
                [
                    f"{peer.name} / {base.name}",
                    f"{ratio.median:.3f}",
                    f"{ratio.least:.3f} to {ratio.most:.3f}",
                    f"{ratio.of_medians:.3f}",
                    f"{memory_ratio(peer, base):.3f}",
                ]
            )
        blocks.append(table(["time", "median of turns", "least to most", "of medians", "memory"], lines))
    agreeing = [peer for peer in peers if peer.agreement]
    if agreeing:
        keys = list(agreeing[0].agreement)
        lines = [[peer.name, *(f"{peer.agreement[key]:.3g}" for key in keys)] for peer in agreeing]
        blocks.append(table([f"beside {peers[0].name}", *(key.replace("_", " ") for key in keys)], lines))
    blocks.append("\n".join(f"{peer.name}: {peer.description}" for peer in peers))
    return "\n\n".join(blocks)


def _why(skipped: Skipped) -> str:
    remedied = " ".join(skipped.remedy.split()[:2]) in skipped.reason
    return f"{skipped.what} was left out: {skipped.reason}" + ("" if remedied else f" Try `{skipped.remedy}`.")
