"""`amodal run`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from amodal.cli.console import FPS, RANGE, print_json, warn
from amodal.cli.logs import verbose_option
from amodal.cli.options import (
    bundle_argument,
    churn_option,
    clip_files_options,
    crop_option,
    depth_options,
    execution_options,
    folder_options,
    json_option,
    long_options,
    noise_option,
    quiet_option,
    result_options,
    stage_option,
    steps_option,
)
from amodal.cli.viewing import view_options
from amodal.runtime.paths import displayed


@click.command("run")
@bundle_argument
@clip_files_options
@folder_options("OUT")
@click.option(
    "--depth",
    metavar="DIR|NPZ|VIDEO",
    help="Depth: a folder of 8- or 16-bit grey PNGs, float TIFFs, EXRs or npy files, an npz, or a grey video. "
    "Default: computed from the frames.",
)
@depth_options
@long_options
@stage_option
@click.option("--amodal", metavar="DIR|JSON|NPZ", help="Whole-object masks, for --stage complete.")
@noise_option
@click.option(
    "--samples",
    type=int,
    default=1,
    metavar="K",
    help="Run K seeds, SEED to SEED + K - 1. Writes each one's masks to samples/, and the share that covers each pixel "
    "to probability/. The first seed gives the main result.",
)
@click.option(
    "--pad",
    is_flag=True,
    help="Pad the frame by a quarter on every side, as published for TAO-Amodal, for objects that leave it. Also "
    "writes amodal_masks_padded/ and completed_padded/, and boxes beyond the frame to result.json.",
)
@crop_option
@click.option(
    "--propagate/--no-propagate",
    default=None,
    help="RGB: keep visible pixels, copy hidden ones from frames that show them, and draw the rest; or draw all, as "
    "the authors' code does. Default: the bundle's (for the default model: --propagate).",
)
@steps_option(int)
@click.option(
    "--guidance",
    type=RANGE,
    default="1.5:1.5",
    help="Classifier-free guidance of the first and last frame, linear in between; 1 turns it off, at half the cost.",
)
@click.option(
    "--fps",
    type=FPS,
    metavar="N|auto",
    default="8",
    help="Frames per second, an input of the model; auto: the video's by --stride, within 1 to 30.",
)
@churn_option
@click.option("--churn-sigmas", type=RANGE, default="0:inf", help="EDM's S_tmin:S_tmax.")
@click.option("--churn-noise", type=float, default=1.0, help="EDM's S_noise.")
@click.option(
    "--context",
    type=click.Choice(["reference", "aligned", "sequence"]),
    help="CLIP rows that the U-Net attends to. Default: the bundle's.",
)
@click.option("--decode-chunk", type=int, metavar="N", help="Frames to decode at once. Default: the bundle's.")
@click.option(
    "--cfg-rows",
    type=click.Choice(["auto", "batched", "separate"]),
    default="auto",
    help="Run guidance's two rows in one call, or one after the other in less memory.",
)
@execution_options(threads=int)
@click.option("--verify/--no-verify", default=True, help="First compare the bundle's files with their hashes.")
@result_options
@view_options
@json_option("result.json")
@quiet_option()
@verbose_option
def command(**options: Any) -> None:
    """Compute whole-object masks and RGB from frames and visible masks.

    These are the options for bundles of Diffusion-VAS. A bundle of SAMEO, which takes single pictures and boxes, has
    its own: amodal run default-sameo --help.

    Writes amodal_masks/*.png, completed/*.png, masks.json (COCO RLE), result.json, overlay.gif and sheet.png; with
    --samples also samples/SEED/amodal_masks/*.png and probability/*.png (0 to 255). --view and --html add a recording
    and a page to look at. result.json is written last: a folder that has it is complete.

    With --objects, objects/ID/ has the masks and RGB of each object, and masks.json is COCO's with track ids. Clips
    longer than the bundle's and several objects also get strip.png, in which a seam between windows would be seen.
    What is finished is written as the run goes; if it is stopped, --resume goes on.

    \b
    Examples:
      amodal run bundle --frames rgbs/ --masks masks/ -o out
      amodal run bundle --frames video.mp4 --masks ids/ --object 3 -o out
      amodal run bundle --frames rgbs/ --masks masks/ -o out --samples 5
      amodal run bundle --frames rgbs/ --masks masks/ -o out --pad --fps 2
      amodal run bundle --frames video.mp4 --masks masks.mp4 -o out \\
          --start 2s --stop 5s --stride 3 --fps auto
      amodal run bundle --frames rgbs/ --masks masks/ -o out --crop auto
      amodal run bundle --frames rgbs/ --masks masks/ -o out --propagate
      amodal run bundle --frames rgbs/ --masks masks/ -o out --cutouts --video mp4
      amodal run bundle --frames rgbs/ --masks masks.json --depth depth/ \\
          -o out --stage segment --guidance 1 --json
      amodal run bundle --frames video.mp4 --masks ids/ --objects all -o out
      amodal run bundle --frames video.mp4 --masks ids/ --objects 1,2,7 \\
          --preset fast --gate auto -o out --resume
    """
    from .job import run_job
    from .long_job import needs_blocks, run_long

    options = _checked(options)
    result = run_long(options) if needs_blocks(options) else run_job({**options, "video": options["video"] or "gif"})
    if not options["quiet"]:
        warn(result["warnings"])
    if options["as_json"]:
        print_json(result)
    elif not options["quiet"]:
        out, seconds = displayed(options["out"]), result["seconds"]["total"]
        click.echo(f"Wrote {out} in {seconds:.1f} s:\n  {', '.join(result['files'])}")


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options with the steps of --preset; refuses options of which only one can count."""
    from amodal.runtime.errors import InputError
    from amodal.runtime.families.diffusion_vas.settings import PRESETS

    if options["objects"] is not None and options["object_id"] is not None:
        raise InputError("--object names one object and --objects several; give one of them.")
    given = click.get_current_context().get_parameter_source
    if options["gate"] == "off" and given("gate_tolerance") is not ParameterSource.DEFAULT:
        raise InputError("--gate-tolerance is for --gate auto; give both, or neither.")
    if options["preset"] is None:
        return options
    if given("steps") is not ParameterSource.DEFAULT:
        raise InputError("--preset and --steps both say how many steps are run; give one of them.")
    return {**options, "steps": PRESETS[options["preset"]]}
