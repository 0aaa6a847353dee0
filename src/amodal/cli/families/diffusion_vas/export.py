"""`amodal export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import SizeType, human_bytes, human_count, human_difference, print_json, table

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
    help="Seeded random weights, of the real architecture or of a toy, instead of checkpoints.",
)
@click.option(
    "--random-depth",
    type=click.Choice(["small", "base", "large", "tiny", "none"]),
    help="With --random: which depth network. Default: large, or tiny for the toy.",
)
@click.option("-o", "--out", required=True, metavar="BUNDLE", help="Folder to write; made whole or not at all.")
@click.option(
    "--size",
    type=SizeType(),
    metavar="HxW",
    default="256x512",
    show_default=True,
    help="Height and width that the networks see; frames of any size are resized to it.",
)
@click.option("--frames", type=int, metavar="N", default=25, show_default=True, help="Most frames in a clip.")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Of the stored weights, and of the arithmetic where the authors' code has it so.",
)
@click.option(
    "--context",
    type=click.Choice(["reference", "aligned", "sequence"]),
    default="reference",
    show_default=True,
    help="Which CLIP rows the U-Net attends to: as released, as meant, or as trained.",
)
@click.option(
    "--decode-chunk",
    type=int,
    metavar="N",
    default=8,
    show_default=True,
    help="Frames the VAE decodes at once; part of the result.",
)
@click.option(
    "--variant",
    metavar="NAME",
    help="How graphs are written: cpu for ONNX Runtime on a CPU (default with fp32), cuda for it on a GPU, engine for "
    "engines (default with fp16), or engine-..., which differ from engine in one form (an unknown name lists them).",
)
@click.option("--weights", metavar="NAME", help="Which variant of the weights to read, for instance fp16.")
@click.option("--revision", metavar="REV", help="Revision on the Hugging Face hub.")
@click.option("--seed", type=int, default=0, show_default=True, help="With --random: of the weights.")
@click.option(
    "--check",
    type=click.Choice(["full", "small", "none"]),
    default="small",
    show_default=True,
    help="Compare each graph with torch: at its own size, at a small one where that is large, or not.",
)
@click.option("--overwrite", is_flag=True, help="Replace BUNDLE if amodal wrote it.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table.")
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
        print_json({"bundle": options["out"], "components": [_plain(row) for row in rows]})
    elif not options["quiet"]:
        click.echo(_text(rows))
        click.echo(f"Wrote {options['out']}")


def _plain(row: Exported) -> dict[str, Any]:
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
        note = "Nothing was compared with torch (--check none)."
    else:
        sizes = sorted(places, key=lambda size: -len(places[size]))
        others = "".join(f", {' and '.join(places[size])} at {size}" for size in sizes[1:])
        note = f"Difference: relative L2 to torch on random input, at {sizes[0]}{others}."
    return f"{table(head, lines)}\n{note}"
