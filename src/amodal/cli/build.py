"""`amodal build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .console import human_bytes, in_options, print_json, settings_from, table
from .options import bundle_argument, components_option, engine_option, json_option, quiet_option, target_option

if TYPE_CHECKING:
    from amodal.engines.build import Built


@click.command("build")
@bundle_argument
@click.option(
    "--backend",
    metavar="NAME",
    default="tensorrt_rtx",
    help="Compiler: tensorrt_rtx, which needs no GPU, or tensorrt, which needs the GPU that it builds for.",
)
@target_option
@components_option
@engine_option
@click.option("--rebuild", is_flag=True, help="Build all engines, even those that are up to date.")
@json_option("the records as JSON")
@quiet_option("Print neither progress nor the table.")
def command(**options: Any) -> None:
    """Compile a bundle's graphs into engines.

    Engines that are up to date are kept. An engine is built if it is missing or damaged, or comes from another graph,
    another version or for other shapes. Needs the rtx or the tensorrt extra.

    \b
    Examples:
      amodal build bundle                      (for every RTX GPU, on any machine)
      amodal build bundle --target sm86,sm89   (RTX 30 and RTX 40)
      amodal build bundle --components unet
      amodal build default --engine-dir engines
    """
    from amodal.engines.build import BuildSettings, build_engines
    from amodal.runtime.families import Bundle

    from .progress import component_lines

    with component_lines(options["quiet"]) as progress:
        rows = build_engines(Bundle(options["bundle"]), settings_from(BuildSettings, options), progress)
    if options["as_json"]:
        print_json({"bundle": options["bundle"], "engines": [_as_json(row) for row in rows]})
    elif not options["quiet"]:
        click.echo(_text(rows))


def _as_json(row: Built) -> dict[str, Any]:
    built = {"built": row.reason is not None, "reason": row.reason, "path": str(row.file)}
    return built | row.record.model_dump(mode="json")


def _text(rows: list[Built]) -> str:
    lines = [
        [
            record.key.component,
            "kept" if reason is None else f"{record.seconds:.1f} s",
            human_bytes(record.weights_bytes),
            " / ".join(map(human_bytes, record.activation_bytes.values())),
            human_bytes(record.file.bytes),
            "{} -> {}".format(*record.layers),
            human_bytes(record.peak_bytes),
        ]
        for record, _, reason in rows
    ]
    seconds = [row.record.seconds for row in rows if row.reason is not None]
    weights = human_bytes(sum(row.record.weights_bytes for row in rows))
    files = human_bytes(sum(row.record.file.bytes for row in rows))
    lines.append(["total", f"{sum(seconds):.1f} s" if seconds else "kept", weights, "", files, "", ""])
    head = ("component", "built in", "weights", "activations", "file", "layers", "host peak")
    note = "Activations: device memory while running, for each profile (rows=1 / rows=2 of the U-Net)."
    rebuilt = [
        in_options(f"Rebuilt {row.record.key.component}: {row.reason}")
        for row in rows
        if row.reason not in (None, "new")
    ]
    key = rows[0].record.key
    where = f"{key.backend} {key.version} for {key.target}, in {rows[0].file.parent}"
    return "\n".join([table(head, lines), note, *rebuilt, where])
