"""`amodal inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .console import component_table, print_json
from .memory import memory_options, show_memory
from .options import bundle_argument, json_option

if TYPE_CHECKING:
    from amodal.runtime.bundle.manifest import Manifest
    from amodal.runtime.families import Bundle


@click.command("inspect")
@bundle_argument
@click.option("--verify/--no-verify", default=True, help="Compare every file with its hash.")
@click.option("--shapes", is_flag=True, help="Show the inputs and outputs of each graph.")
@json_option("the result as JSON")
@memory_options
def command(bundle: str, verify: bool, shapes: bool, as_json: bool, memory: bool, **options: Any) -> None:
    """Show a bundle's graphs, shapes, sizes and integrity; with --memory, the GPU memory of a run.

    \b
    Examples:
      amodal inspect bundle
      amodal inspect bundle --shapes
      amodal inspect bundle --json --no-verify
      amodal inspect bundle --memory --vram 6GB --picture memory.png
      amodal inspect bundle --memory --backend onnxruntime --device cuda --record
    """
    if memory and shapes:
        raise click.UsageError("--shapes and --memory show different things; choose one.")
    if memory:  # from records and the manifest, without reading weights
        show_memory(bundle, as_json, options)
        return
    stray = [name.replace("_", "-") for name, value in options.items() if value is not None]
    if stray:
        raise click.UsageError(f"--{stray[0]} needs --memory; add it.")

    from amodal.runtime.families import Bundle

    from .progress import component_lines

    opened = Bundle(bundle)
    manifest = opened.manifest
    if verify:
        with component_lines(quiet=False) as progress:
            for key in manifest.components:
                opened.verify(key, progress)
    if as_json:
        print_json({"path": bundle, "verified": verify, **manifest.as_json()})
        return
    click.echo("\n".join([bundle, *_facts(opened, verify), "", _components(manifest)]))
    if shapes:
        click.echo("\n".join(_shapes(manifest)))


def _facts(bundle: Bundle, verified: bool) -> list[str]:
    from amodal.runtime.backends.onnxruntime.graph import describe_fused

    from .families import describe

    manifest = bundle.manifest
    rows = [
        ("family", manifest.family),
        *((f"stage {name}", stage.source) for name, stage in manifest.tasks.items()),
        *describe(bundle),
        ("CPU kernels", describe_fused(manifest.components.values())),
        ("weights' licence", ", ".join(sorted({s.licence or "not stated" for s in manifest.tasks.values()}))),
        ("written", f"{manifest.created} by amodal {manifest.amodal_version}"),
        ("integrity", "every file matches its hash" if verified else "sizes match; hashes not compared"),
    ]
    return [f"  {name:<16}  {value}" for name, value in rows]


def _components(manifest: Manifest) -> str:
    entries = manifest.components
    measured = any(entry.difference is not None for entry in entries.values())
    note = "relative L2 to torch on random input" if measured else "to torch, not measured at export"
    return f"{component_table(entries, stored=[*(e.stored for e in entries.values()), ''])}\nDifference: {note}."


def _shapes(manifest: Manifest) -> list[str]:
    lines = []
    for key, entry in manifest.components.items():
        lines += ["", key]
        for way, tensors in (("in ", entry.inputs), ("out", entry.outputs)):
            lines += [f"  {way}  {t.name:<14}  {t.dtype}  [{', '.join(map(str, t.shape))}]" for t in tensors]
    return lines
