"""`amodal build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import NamesType, human_bytes, print_json, table

if TYPE_CHECKING:
    from amodal.engines.build import Built


@click.command("build")
@click.argument("bundle", type=click.Path())
@click.option(
    "--backend",
    metavar="NAME",
    default="tensorrt_rtx",
    show_default=True,
    help="Compiler: tensorrt_rtx, which needs no GPU, or tensorrt, which needs the GPU it builds for.",
)
@click.option(
    "--target",
    metavar="GPUS",
    default="portable",
    show_default=True,
    help="What the engines run on: compute capabilities like sm86,sm89, all that the compiler knows (portable), or the "
    "GPU of this machine (this).",
)
@click.option("--components", type=NamesType(), help="Only these, by key or kind: unet,vae_decoder. Default: all.")
@click.option("--weight-streaming", is_flag=True, help="Let part of the weights stay in host memory; slower.")
@click.option(
    "--engine-dir",
    type=click.Path(path_type=Path),
    help="Folder for the engines. Default: engines/ in the bundle; the user's cache for the default bundle.",
)
@click.option("--rebuild", is_flag=True, help="Build even what is there and right.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table.")
def command(**options: Any) -> None:
    """Compile a bundle's graphs into engines.

    What is there and right is kept; what is missing, damaged, or built from another graph, by another version or with
    other options is built. Needs the rtx or the tensorrt extra.

    \b
    Examples:
      amodal build bundle                        (for every RTX GPU, on any machine)
      amodal build bundle --target sm86,sm89     (RTX 30 and RTX 40)
      amodal build bundle --components unet
      amodal build default --engine-dir engines
    """
    from amodal.engines.build import BuildSettings, build_engines
    from amodal.runtime.families import Bundle

    from .progress import ComponentLines, Watcher

    settings = BuildSettings(
        backend=options["backend"],
        target=options["target"],
        components=options["components"],
        weight_streaming=options["weight_streaming"],
        engine_dir=options["engine_dir"],
        rebuild=options["rebuild"],
    )
    with ComponentLines(Watcher(options["quiet"])).show() as lines:
        rows = build_engines(Bundle(options["bundle"]), settings, lines)
    if options["as_json"]:
        print_json({"bundle": str(options["bundle"]), "engines": [_plain(row) for row in rows]})
    elif not options["quiet"]:
        click.echo(_text(rows))


def _plain(row: Built) -> dict[str, Any]:
    return {"built": row.reason is not None, "reason": row.reason, "path": str(row.file)} | row.record.model_dump(
        mode="json"
    )


def _text(rows: list[Built]) -> str:
    lines = []
    for row in rows:
        record = row.record
        activations = " / ".join(human_bytes(size) for size in record.activation_bytes.values())
        before, after = record.layers
        lines.append(
            [
                record.key.component,
                "kept" if row.reason is None else f"{record.seconds:.1f} s",
                human_bytes(record.weights_bytes),
                activations,
                human_bytes(record.file.bytes),
                f"{before} -> {after}",
                human_bytes(record.peak_bytes),
            ]
        )
    built = [row.record for row in rows if row.reason is not None]
    total = [
        "total",
        f"{sum(r.seconds for r in built):.1f} s" if built else "kept",
        human_bytes(sum(r.record.weights_bytes for r in rows)),
        "",
        human_bytes(sum(r.record.file.bytes for r in rows)),
        "",
        "",
    ]
    head = ("component", "built in", "weights", "activations", "file", "layers", "host peak")
    rebuilt = [f"Rebuilt {row.record.key.component}: {row.reason}" for row in rows if row.reason not in (None, "new")]
    notes = ["Activations: device memory that running takes, for each profile (rows=1 / rows=2 of the U-Net)."]
    key = rows[0].record.key
    where = f"{key.backend} {key.version} for {key.target}, in {rows[0].file.parent}"
    return "\n".join([table(head, [*lines, total]), *notes, *rebuilt, where])
