"""`amodal export --family sameo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import SIZE, settings_from
from amodal.cli.families.exported import family_option, report, require_libraries, writing_options
from amodal.cli.options import folder_options
from amodal.runtime.errors import InputError

if TYPE_CHECKING:
    from amodal.export.bundle import Exported

_NEEDED = ("torch", "safetensors", "onnx", "onnx_ir", "onnxruntime")


@click.command("export")
@family_option
@click.option(
    "--checkpoint",
    metavar="PT|ZIP",
    help="EfficientSAM: efficient_sam_vitt.pt, efficient_sam_vits.pt, or a .zip that contains one.",
)
@click.option(
    "--decoder",
    metavar="PTH",
    help="SAMEO's tuned parts, {decoder, encoder}, to take the place of the checkpoint's. Without, the bundle masks "
    "what is visible, as EfficientSAM does.",
)
@click.option(
    "--random",
    type=click.Choice(["ti", "s", "tiny"]),
    help="Use seeded random weights, of EfficientSAM-Ti, of -S or of a toy, instead of a checkpoint.",
)
@folder_options("BUNDLE")
@click.option(
    "--size",
    type=SIZE,
    metavar="HxW",
    help="Height and width that the encoder sees; pictures of any size are resized to it. Default: the checkpoint's, "
    "1024x1024 for the official ones.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    help="Precision of the arithmetic, and of the stored weights.",
)
@click.option("--stored", type=click.Choice(["fp16", "fp32"]), help="Precision of the stored weights, if another.")
@click.option(
    "--variant",
    metavar="NAME",
    help="Form of the graphs: cpu for ONNX Runtime on a CPU (default with fp32), cuda for it on a GPU, or engine for "
    "engines (default with fp16).",
)
@click.option("--boxes", type=int, metavar="N", default=16, help="Boxes that the decoder takes at once; more in turns.")
@writing_options
def command(**options: Any) -> None:
    """Turn a checkpoint of SAMEO or EfficientSAM into a bundle that runs without PyTorch.

    Needs the export extra: pip install "amodal[export]".

    \b
    Examples:
      amodal export --family sameo --checkpoint efficient_sam_vits.pt --decoder sameo.pth -o bundle
      amodal export --family sameo --checkpoint efficient_sam_vitt.pt --precision fp32 --size 512x1024 -o bundle
      amodal export --family sameo --random ti -o random    (before downloading)
    """
    report(_export(options), options)


def _export(options: dict[str, Any]) -> list[Exported]:
    """Reads the checkpoint and exports it; returns one row per component."""
    from amodal.cli.progress import activity, component_lines
    from amodal.runtime.bundle.manifest import MANIFEST_NAME
    from amodal.runtime.files.atomic import check_output

    require_libraries(_NEEDED)
    checkpoint, decoder, random = (options[name] for name in ("checkpoint", "decoder", "random"))
    if random and (checkpoint or decoder):
        given = " and ".join(f"--{name}" for name in ("checkpoint", "decoder") if options[name])
        raise InputError(f"--random makes its own weights; omit {given}, or omit --random.")
    if not (random or checkpoint):
        over = ", which --decoder is read over" if decoder else ""
        raise InputError(f"nothing to export: give --checkpoint efficient_sam_vits.pt{over}, or --random ti.")
    inputs = [path for path in (checkpoint, decoder) if path]
    check_output(options["out"], options["overwrite"], MANIFEST_NAME, inputs)
    quiet = options["quiet"]
    with activity(quiet, "importing torch"):
        from amodal.export.bundle import export_bundle
        from amodal.export.families.sameo.checkpoint import random_checkpoint, read_sameo
        from amodal.export.families.sameo.plan import SameoSettings, plan_sameo

        settings = settings_from(SameoSettings, options)
    with activity(quiet, "reading the checkpoint"):
        read = random_checkpoint(random, options["seed"]) if random else read_sameo(checkpoint, decoder)
    with component_lines(quiet) as progress:
        plan = plan_sameo(read, settings)
        return export_bundle(options["out"], plan, overwrite=options["overwrite"], inputs=inputs, progress=progress)
