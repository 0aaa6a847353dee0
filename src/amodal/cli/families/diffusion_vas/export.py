"""`amodal export`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from amodal.cli.console import SIZE, settings_from
from amodal.cli.families.exported import family_option, report, require_libraries, writing_options
from amodal.cli.options import folder_options
from amodal.runtime.errors import InputError

if TYPE_CHECKING:
    from amodal.export.bundle import Exported

_NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnx", "onnx_ir", "onnxruntime")


@click.command("export")
@family_option
@click.option("--segment", metavar="DIR|HF_ID", help="Checkpoint of the first stage (visible masks to whole masks).")
@click.option("--complete", metavar="DIR|HF_ID", help="Checkpoint of the second stage (RGB of the whole object).")
@click.option(
    "--depth",
    metavar="DIR|PTH|HF_ID",
    help="Depth Anything V2: a transformers folder, the authors' .pth, or the Hugging Face id of either.",
)
@click.option(
    "--depth-kind",
    type=click.Choice(["relative", "metric"]),
    help="What the depth network gives: relative depth, or distances, which are inverted. Default: relative; a metric "
    "checkpoint is refused.",
)
@click.option(
    "--depth-channels",
    type=click.Choice(["demo", "rgb"]),
    default="demo",
    help="Order of the channels that the depth network is given: blue first, as in the authors' demo, or red first, "
    "as in their evaluation.",
)
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
    "--decode-chunk", type=int, metavar="N", default=8, help="Frames that the VAE decodes at once; affects the result."
)
@click.option(
    "--variant",
    metavar="NAME",
    help="Form of the graphs: cpu for ONNX Runtime on a CPU (default with fp32), cuda for it on a GPU, engine "
    "for engines (default with fp16), or an engine-... variant, which differs from engine in one form (an unknown name "
    "lists them).",
)
@click.option("--weights", metavar="NAME", help="Variant of the weights to read, for instance fp16.")
@click.option("--revision", metavar="REV", help="Revision of --segment and --complete on the Hugging Face hub.")
@writing_options
def command(**options: Any) -> None:
    """Turn checkpoints into a bundle that runs without PyTorch.

    Needs the export extra: pip install "amodal[export]".

    \b
    Examples:
      amodal export --segment kaihuac/diffusion-vas-amodal-segmentation \\
          --complete kaihuac/diffusion-vas-content-completion \\
          --depth depth-anything/Depth-Anything-V2-Large-hf -o bundle
      amodal export --segment ckpt/ --precision fp32 --size 256x512 -o bundle
      amodal export --random diffusion-vas -o random    (before downloading)
      amodal export --random tiny --size 64x128 -o toy
    """
    report(_export(options), options)


def _export(options: dict[str, Any]) -> list[Exported]:
    """Reads the checkpoints and exports them; returns one row per component."""
    from amodal.cli.progress import activity, component_lines, hidden
    from amodal.runtime.bundle.manifest import MANIFEST_NAME
    from amodal.runtime.files.atomic import check_output

    require_libraries(_NEEDED)
    random = options["random_kind"]
    given = [f"--{name}" for name in ("segment", "complete") if options[name]]
    if random and given:
        raise InputError(f"--random makes its own weights; omit {' and '.join(given)}, or omit --random.")
    if not (random or given):
        raise InputError("nothing to export: give --segment CHECKPOINT, --complete CHECKPOINT, both, or --random tiny.")
    if options["random_depth"] and (options["depth"] or not random):
        raise InputError("--random-depth needs --random; use it without --depth.")
    if options["depth_kind"] and not options["depth"]:
        raise InputError("--depth-kind says what the network of --depth gives; give --depth, or omit --depth-kind.")
    inputs = [options[name] for name in ("segment", "complete", "depth") if options[name]]
    check_output(options["out"], options["overwrite"], MANIFEST_NAME, inputs)

    quiet = options["quiet"]
    if hidden(quiet):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with activity(quiet, "importing torch"):
        from amodal.export.bundle import export_bundle
        from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint
        from amodal.export.depth_anything.network import load_depth, random_depth
        from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export

        settings = settings_from(ExportSettings, options)
    stages: dict[Any, Any] = {}
    depth = None
    with activity(quiet, "reading checkpoints"):
        for stage in ("segment", "complete"):
            if random:
                stages[stage] = random_checkpoint(random, stage, options["seed"])
            elif options[stage]:
                weights, revision = options["weights"], options["revision"]
                stages[stage] = read_checkpoint(options[stage], variant=weights, revision=revision)
        if options["depth"]:
            depth = load_depth(options["depth"], options["depth_kind"])
        elif random:
            size = options["random_depth"] or {"diffusion-vas": "large", "tiny": "tiny"}[random]
            depth = None if size == "none" else random_depth(size, options["seed"])
    with component_lines(quiet) as progress:
        plan = plan_export(stages, depth, settings)
        return export_bundle(options["out"], plan, overwrite=options["overwrite"], inputs=inputs, progress=progress)
