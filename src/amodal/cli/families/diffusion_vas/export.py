"""`amodal export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import SIZE, human_bytes, human_count, human_difference, print_json, table
from amodal.cli.options import folder_options, json_option, quiet_option

if TYPE_CHECKING:
    from amodal.export.bundle import Exported


@click.command("export")
@click.option("--segment", metavar="DIR|HF_ID", help="Checkpoint of the first stage (visible masks to whole masks).")
@click.option("--complete", metavar="DIR|HF_ID", help="Checkpoint of the second stage (RGB of the whole object).")
@click.option("--depth", metavar="DIR|PTH", help="Depth Anything V2: a transformers folder, or the authors' .pth.")
@click.option(
    "--random",
    "random_kind",
    type=click.Choice(["diffusion-vas", "tiny"]),
    help="Use seeded random weights, of the real architecture or of a toy, instead of checkpoints.",
)
@click.option(
    "--random-depth",
    type=click.Choice(["small", "base", "large", "tiny", "none"]),
    help="With --random: the depth network. Default: large, or tiny for the toy.",
)
@folder_options("BUNDLE")
@click.option(
    "--size",
    type=SIZE,
    metavar="HxW",
    default="256x512",
    help="Height and width that the networks see; frames of any size are resized to it.",
)
@click.option("--frames", type=int, metavar="N", default=25, help="Maximum number of frames in a clip.")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    help="Precision of the stored weights, and of the arithmetic where the authors' code uses it.",
)
@click.option(
    "--context",
    type=click.Choice(["reference", "aligned", "sequence"]),
    default="reference",
    help="CLIP rows that the U-Net attends to: as released, as intended, or as trained.",
)
@click.option(
    "--decode-chunk",
    type=int,
    metavar="N",
    default=8,
    help="Frames that the VAE decodes at once; affects the result.",
)
@click.option(
    "--variant",
    metavar="NAME",
    help="Form of the graphs: cpu for ONNX Runtime on a CPU (default with fp32), cuda for it on a GPU, engine "
    "for engines (default with fp16), or an engine-... variant, which differs from engine in one form (an unknown name "
    "lists them).",
)
@click.option("--weights", metavar="NAME", help="Variant of the weights to read, for instance fp16.")
@click.option("--revision", metavar="REV", help="Revision on the Hugging Face hub.")
@click.option("--seed", type=int, default=0, help="With --random: seed of the weights.")
@click.option(
    "--check",
    type=click.Choice(["full", "small", "none"]),
    default="small",
    help="Compare each graph with torch: at its own size, at a small one if that is large, or not at all.",
)
@json_option("the table as JSON")
@quiet_option("Print neither progress nor the table.")
def command(**options: Any) -> None:
    """Turn checkpoints into a bundle that runs without PyTorch.

    Needs the export extra: pip install "amodal[export]".

    \b
    Examples:
      amodal export --segment kaihuac/diffusion-vas-amodal-segmentation \\
          --complete kaihuac/diffusion-vas-content-completion \\
          --depth depth_anything_v2_vitl.pth -o bundle
      amodal export --segment ckpt/ --precision fp32 --size 256x512 -o bundle
      amodal export --random diffusion-vas -o random    (before downloading)
      amodal export --random tiny --size 64x128 -o toy
    """
    from .exporting import export_job

    rows = export_job(options)
    if options["as_json"]:
        print_json({"bundle": options["out"], "components": [_as_json(row) for row in rows]})
    elif not options["quiet"]:
        click.echo(_text(rows))
        click.echo(f"Wrote {options['out']}")


def _as_json(row: Exported) -> dict[str, Any]:
    return {
        "component": row.key,
        "precision": row.entry.precision,
        "parameters": row.entry.parameters,
        "bytes": row.entry.bytes,
        "difference": row.entry.difference,
        "checked_at": list(row.check_size) if row.entry.difference is not None else None,
        "seconds": row.seconds,
    }


def _text(rows: list[Exported]) -> str:
    lines = [
        [
            row.key,
            row.entry.precision,
            human_count(row.entry.parameters),
            human_bytes(row.entry.bytes),
            human_difference(row.entry.difference),
            f"{row.seconds:.1f}",
        ]
        for row in rows
    ]
    parameters, size = sum(r.entry.parameters for r in rows), sum(r.entry.bytes for r in rows)
    lines.append(["total", "", human_count(parameters), human_bytes(size), "", f"{sum(r.seconds for r in rows):.1f}"])
    head = ("component", "arithmetic", "parameters", "size", "difference", "seconds")
    places: dict[str, list[str]] = {}
    for row in rows:
        if row.entry.difference is not None:
            places.setdefault("x".join(map(str, row.check_size)), []).append(row.key)
    if not places:
        note = "No graph was compared with torch (--check none)."
    else:
        sizes = sorted(places, key=lambda size: -len(places[size]))
        others = "".join(f", {' and '.join(places[size])} at {size}" for size in sizes[1:])
        note = f"Difference: relative L2 to torch on random input, at {sizes[0]}{others}."
    return f"{table(head, lines)}\n{note}"
