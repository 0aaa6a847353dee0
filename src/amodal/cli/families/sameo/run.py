"""`amodal run` for a SAMEO bundle."""

from __future__ import annotations

from typing import Any

import click

from amodal.cli.console import OBJECTS, print_json, warn
from amodal.cli.logs import verbose_option
from amodal.cli.options import (
    bundle_argument,
    execution_options,
    folder_options,
    json_option,
    quiet_option,
    trim_options,
)
from amodal.cli.viewing import view_options
from amodal.runtime.paths import displayed


@click.command("run")
@bundle_argument
@click.option(
    "--images",
    required=True,
    metavar="DIR|FILE",
    help="Pictures: a folder of images of any sizes, one image, a video, a GIF or TIFF stack.",
)
@click.option(
    "--detections",
    metavar="JSON",
    help="Boxes of a detector, as COCO results: a list of {image_id, bbox: [x, y, width, height], category_id, score}.",
)
@click.option(
    "--images-json",
    metavar="JSON",
    help="COCO annotations that say which file an image_id of --detections is. Default: the file whose name is the id, "
    "or ends with its number.",
)
@click.option(
    "--box-format",
    type=click.Choice(["xywh", "xyxy"]),
    help="What the numbers of a bbox are: x, y, width and height, or two corners. Default: xywh, as COCO has it, "
    "unless that hardly fits the pictures and the other does, which is refused.",
)
@click.option(
    "--first-id", type=click.IntRange(0, 1), help="The image_id of a video's first frame, where that is not clear."
)
@click.option("--min-score", type=float, default=0.0, metavar="S", help="Leave out boxes with a lower score.")
@click.option(
    "--masks",
    metavar="DIR|FILE",
    help="Visible masks instead of --detections, of any number of objects: pictures, a video, json or npz. Each is "
    "completed from the box around it. docs/inputs.md lists the layouts.",
)
@click.option("--objects", type=OBJECTS, metavar="all|ID,ID", help="With --masks: which objects. Default: all.")
@click.option(
    "--mask-kind",
    type=click.Choice(["auto", "binary", "matte", "ids", "alpha"]),
    default="auto",
    help="With --masks: what the values of masks mean, where that can be read in two ways.",
)
@click.option(
    "--missing-masks",
    type=click.Choice(["error", "empty"]),
    default="error",
    help="With --masks: frames without a mask are refused, or show no object.",
)
@click.option(
    "--pair",
    type=click.Choice(["auto", "name", "order"]),
    default="auto",
    help="With --masks: pair masks with pictures by their names or numbers, or by order.",
)
@trim_options
@click.option(
    "--unite/--no-unite",
    default=True,
    help="With --masks: add what is visible to the whole mask, or leave it as the network drew it.",
)
@click.option(
    "--points",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="With --masks: also give the network N points of the visible mask, besides its box.",
)
@click.option(
    "--select",
    type=click.Choice(["best", "first", "single"]),
    default="best",
    help="Which of the network's masks: the one it expects to be best, the first of its three, or its single one.",
)
@click.option(
    "--threshold",
    type=float,
    default=0.0,
    metavar="LOGIT",
    help="Pixels belong to a mask from this logit on; higher gives smaller masks.",
)
@folder_options("OUT")
@click.option("--overlay/--no-overlay", default=True, help="Draw the masks over the pictures, for people.")
@click.option(
    "--video",
    type=click.Choice(["gif", "mp4"]),
    help='Format of a video\'s overlay: mp4 (needs pip install "amodal[video]"; the default with it), or a GIF of at '
    "most 100 frames.",
)
@click.option("--cutouts", is_flag=True, help="Also write the pixels of each whole mask to rgba/, as PNGs with alpha.")
@view_options
@execution_options(threads=int)
@click.option("--verify/--no-verify", default=True, help="First compare the bundle's files with their hashes.")
@json_option("result.json")
@quiet_option()
@verbose_option
def command(**options: Any) -> None:
    """Compute whole-object masks from boxes, or from visible masks, of single pictures.

    From --detections, writes coco_results.json: a row {image_id, category_id, segmentation, score} for each box, whose
    score is the detector's times the mask's own, which is in predicted_iou. From --masks, writes amodal_masks/*.png and
    masks.json, for several objects in objects/ID/, as for a bundle of Diffusion-VAS. Each frame is on its own.

    Pictures are drawn in overlay/ or, for clips, in overlay.mp4 or overlay.gif; --view and --html add a recording and
    a page to look at. result.json is written last: a folder
    that has it is complete.

    \b
    Examples:
      amodal run default-sameo --images photos/ --detections boxes.json -o out
      amodal run bundle --images val2014/ --detections boxes.json \\
          --images-json instances_val2014.json --min-score 0.3 -o out
      amodal run bundle --images video.mp4 --detections boxes.json \\
          --first-id 0 -o out
      amodal run bundle --images frames/ --masks masks/ --cutouts -o out
    """
    from .job import run_job

    result = run_job(_checked(options))
    if not options["quiet"]:
        warn(result["warnings"])
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        out, seconds = displayed(options["out"]), result["seconds"]["total"]
        pace = f"{result['throughput']['images_per_second']:.1f} images/s"
        click.echo(f"Wrote {out} in {seconds:.1f} s ({pace}):\n  {', '.join(result['files'])}")


_OF_MASKS = ("objects", "mask_kind", "missing_masks", "pair", "unite", "points")
_OF_DETECTIONS = ("images_json", "box_format", "first_id", "min_score")


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options; refuses those that belong to the other kind of input."""
    import math

    from click.core import ParameterSource

    from amodal.runtime.errors import InputError

    if (options["detections"] is None) == (options["masks"] is None):
        what = "neither was given" if options["masks"] is None else "both were given"
        raise InputError(f"objects are told by --detections (boxes) or by --masks (visible masks), and {what}.")
    other, own = ("masks", _OF_MASKS) if options["masks"] is None else ("detections", _OF_DETECTIONS)
    source = click.get_current_context().get_parameter_source
    for name in own:
        if source(name) not in (ParameterSource.DEFAULT, None):
            given = "no-unite" if name == "unite" and not options[name] else name.replace("_", "-")
            raise InputError(f"--{given} is for --{other}, which was not given; omit it.")
    if options["video"] is not None and not options["overlay"]:
        raise InputError("--video is the format of the overlay, which --no-overlay leaves out; omit one of them.")
    for name in ("threshold", "min_score"):
        if not math.isfinite(options[name]):
            raise InputError(f"`{name}` is {options[name]}; expected a finite number.", field=name)
    return options
