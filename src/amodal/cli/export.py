"""`amodal export`."""

from __future__ import annotations

from typing import Any

import click

from .console import SizeType, diagnostics, human_bytes, human_count, print_json


@click.command("export")
@click.option("--segment", metavar="DIR|HF_ID", help="Checkpoint of the first stage (visible masks to whole masks).")
@click.option("--complete", metavar="DIR|HF_ID", help="Checkpoint of the second stage (RGB of the whole object).")
@click.option("--depth", metavar="DIR|PTH", help="Depth Anything V2: a transformers folder, or the authors' .pth.")
@click.option(
    "--random",
    "random_kind",
    type=click.Choice(["diffusion-vas", "tiny"]),
    help="Seeded random weights of the real architecture, or of a toy, instead of checkpoints.",
)
@click.option("--random-depth", type=click.Choice(["small", "base", "large", "tiny", "none"]), help="With --random.")
@click.option("-o", "--out", required=True, metavar="BUNDLE", help="Folder to write; made whole or not at all.")
@click.option("--size", type=SizeType(), default="256x512", show_default=True, help="Height and width of the clip.")
@click.option("--frames", type=int, default=25, show_default=True, help="Frames per clip.")
@click.option("--precision", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True)
@click.option(
    "--context",
    type=click.Choice(["reference", "aligned", "sequence"]),
    default="reference",
    show_default=True,
    help="Which CLIP rows the U-Net attends to: as released, as meant, or as trained.",
)
@click.option("--decode-chunk", type=int, default=8, show_default=True, help="Frames the VAE decodes at once.")
@click.option(
    "--variant",
    type=click.Choice(["cpu", "engine"]),
    help="How graphs are written: for ONNX Runtime on a CPU (default with fp32), or for engines (with fp16).",
)
@click.option("--weights", metavar="NAME", help="Which variant of the weights to read, for instance fp16.")
@click.option("--revision", metavar="REV", help="Revision on the Hugging Face hub.")
@click.option("--seed", type=int, default=0, show_default=True, help="With --random.")
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
          --complete kaihuac/diffusion-vas-content-completion --depth depth_anything_v2_vitl.pth -o bundle
      amodal export --segment ckpt/ --precision fp32 --size 256x512 -o bundle
      amodal export --random diffusion-vas -o random       (to measure before downloading)
      amodal export --random tiny --size 64x128 -o toy
    """
    from .exporting import export_job

    console = diagnostics()
    rows = export_job(options, console)
    table = [
        {
            "component": row.key,
            "precision": row.entry.precision,
            "parameters": row.entry.parameters,
            "bytes": row.entry.bytes,
            "difference": row.entry.difference,
            "checked_at": list(row.check_size) if row.entry.difference is not None else None,
            "seconds": row.seconds,
        }
        for row in rows
    ]
    if options["as_json"]:
        print_json({"bundle": options["out"], "components": table})
    elif not options["quiet"]:
        _print_table(table, options["out"])


def _print_table(rows: list[dict[str, Any]], out: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("component", "arithmetic", title=f"{out}")
    for name in ("parameters", "size", "difference to torch", "checked at", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        difference = row["difference"]
        table.add_row(
            row["component"],
            row["precision"],
            human_count(row["parameters"]),
            human_bytes(row["bytes"]),
            "not measured" if difference is None else f"{difference:.1e}",
            "" if difference is None else "x".join(map(str, row["checked_at"])),
            f"{row['seconds']:.1f}",
        )
    table.add_section()
    total = [sum(r[k] for r in rows) for k in ("parameters", "bytes", "seconds")]
    table.add_row("total", "", human_count(total[0]), human_bytes(total[1]), "", "", f"{total[2]:.1f}")
    Console().print(table)
