"""`amodal inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import human_bytes, human_count, print_json


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare every file with its hash.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(bundle: Path, verify: bool, as_json: bool) -> None:
    """What is inside a bundle: graphs, shapes, sizes, integrity.

    \b
    Examples:
      amodal inspect bundle
      amodal inspect bundle --json --no-verify
    """
    from amodal.runtime.bundle import Bundle

    opened = Bundle(bundle)
    manifest = opened.manifest
    if verify:
        for key in manifest.components:
            opened.verify(key)
    if as_json:
        print_json({"path": str(bundle), "verified": verify, **manifest.as_json()})
        return
    _print(bundle, manifest, verify)


def _print(path: Path, manifest: Any, verified: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    height, width = manifest.latent_size
    total = sum(c.bytes for c in manifest.components.values())
    licences = {e.licence or "not stated" for e in manifest.stages.values()}
    facts = [
        ("family", f"{manifest.family}, stages {' and '.join(manifest.stages)}"),
        ("clip", f"{manifest.frames} frames of {manifest.height}x{manifest.width}, latents {height}x{width}"),
        ("context layout", manifest.context_layout),
        ("decode chunk", f"{manifest.decode_chunk} frames"),
        ("noise", manifest.noise_dtype),
        ("depth", manifest.depth.model if manifest.depth else "none: give depth with --depth"),
        ("weights' licence", ", ".join(sorted(licences))),
        (
            "written",
            f"{manifest.created} by amodal {manifest.amodal_version}, schema {manifest.schema_version}",
        ),
        ("size", human_bytes(total)),
        ("integrity", "every file matches its hash" if verified else "sizes match; hashes not checked"),
    ]
    console.print(f"[bold]{path}[/bold]")
    for name, value in facts:
        console.print(f"  {name:<18}{value}")
    table = Table("component", "arithmetic", "stored", "inputs -> outputs")
    for name in ("parameters", "size", "difference to torch"):
        table.add_column(name, justify="right")
    for key, entry in manifest.components.items():
        difference = "not measured" if entry.difference is None else f"{entry.difference:.1e}"
        table.add_row(
            key,
            entry.precision,
            entry.stored,
            f"{_shapes(entry.inputs)}\n-> {_shapes(entry.outputs)}",
            human_count(entry.parameters),
            human_bytes(entry.bytes),
            difference,
        )
    console.print(table)


def _shapes(entries: Any) -> str:
    return "\n".join(f"{e.name} \\[{', '.join(map(str, e.shape))}]" for e in entries)
