"""`amodal run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from amodal.cli.console import BytesType, RangeType, print_json, warn


@click.command("run")
@click.argument("bundle", type=click.Path())
@click.option("--frames", required=True, metavar="DIR|VIDEO", help="RGB frames: a folder of images, or a video.")
@click.option(
    "--masks",
    required=True,
    metavar="DIR|JSON|NPZ",
    help="Visible masks of one object: a folder of PNGs (binary, or with ids and --object), COCO RLE, or npz.",
)
@click.option("-o", "--out", required=True, metavar="OUT", help="Folder to write; made whole or not at all.")
@click.option(
    "--depth",
    metavar="DIR|NPZ",
    help="Depth, nearer is larger: 8- or 16-bit grey PNGs. Default: from the frames.",
)
@click.option(
    "--stage", type=click.Choice(["segment", "complete", "both"]), help="What to run. Default: what the bundle has."
)
@click.option("--amodal", metavar="DIR|JSON|NPZ", help="Whole-object masks, for --stage complete.")
@click.option("--object", "object_id", type=int, metavar="ID", help="Which object of masks that hold several.")
@click.option(
    "--seed", type=int, default=23, show_default=True, help="Of the noise: the same as torch's CPU generator draws."
)
@click.option(
    "--samples",
    type=int,
    default=1,
    show_default=True,
    metavar="K",
    help="Run K seeds, SEED to SEED + K - 1: their masks in samples/, and in probability/ the share that covers each "
    "pixel. The first is the result.",
)
@click.option(
    "--pad",
    is_flag=True,
    help="Room around the frame for objects that leave it, a quarter on every side, as published for TAO-Amodal: "
    "also amodal_masks_padded/ and completed_padded/, and boxes beyond the frame in result.json.",
)
@click.option(
    "--propagate/--no-propagate",
    default=None,
    help="RGB: keep visible pixels, carry hidden ones over from frames that show them, and draw the rest; or draw all, "
    "as the authors' code. Default: the bundle's (the default model's: --propagate).",
)
@click.option("--steps", type=int, default=25, show_default=True, help="Sampler steps.")
@click.option(
    "--guidance",
    type=RangeType(),
    default="1.5:1.5",
    show_default=True,
    help="Classifier-free guidance of the first and last frame, linear in between; 1 turns it off, at half the cost.",
)
@click.option("--fps", type=float, default=8.0, show_default=True, help="Frames per second, as the model is told.")
@click.option("--churn", type=float, default=0.0, show_default=True, help="EDM's S_churn: fresh noise while sampling.")
@click.option("--churn-sigmas", type=RangeType(), default="0:inf", show_default=True, help="EDM's S_tmin:S_tmax.")
@click.option("--churn-noise", type=float, default=1.0, show_default=True, help="EDM's S_noise.")
@click.option(
    "--context",
    type=click.Choice(["reference", "aligned", "sequence"]),
    help="Which CLIP rows the U-Net attends to. Default: the bundle's.",
)
@click.option("--decode-chunk", type=int, metavar="N", help="Frames decoded at once. Default: the bundle's.")
@click.option(
    "--cfg-rows",
    type=click.Choice(["auto", "batched", "separate"]),
    default="auto",
    show_default=True,
    help="Guidance's two rows in one call, or one after the other in less memory.",
)
@click.option(
    "--backend",
    metavar="NAME",
    default="onnxruntime",
    show_default=True,
    help="What executes; auto for the best usable. `amodal doctor` lists them.",
)
@click.option("--device", metavar="NAME", help="Where the backend executes: cpu, cuda, cuda:1. Default: where it can.")
@click.option("--threads", type=int, metavar="N", help="CPU threads. Default: all cores.")
@click.option(
    "--memory",
    type=click.Choice(["auto", "resident", "sequential"]),
    default="resident",
    show_default=True,
    help="Keep every component loaded, or one at a time; auto for the faster of what fits.",
)
@click.option(
    "--vram",
    type=BytesType(),
    help="The most GPU memory to take (6GB, 800MB), for backends that run engines: a run that needs more is refused "
    "before anything is loaded. `amodal inspect --memory` shows what is needed.",
)
@click.option(
    "--engine-dir", type=click.Path(path_type=Path), help="Folder with the engines, as given to `amodal build`."
)
@click.option("--verify/--no-verify", default=True, show_default=True, help="Check the bundle's hashes first.")
@click.option("--overlay/--no-overlay", default=True, show_default=True, help="Write overlay.gif and sheet.png.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if amodal wrote it.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(bundle: str, **options: Any) -> None:
    """Whole-object masks and RGB from frames and visible masks.

    Writes amodal_masks/*.png, completed/*.png, masks.json (COCO RLE), result.json, overlay.gif and sheet.png; with
    --samples also samples/SEED/amodal_masks/*.png and probability/*.png (0 to 255).

    \b
    Examples:
      amodal run bundle --frames rgbs/ --masks masks/ -o out
      amodal run bundle --frames video.mp4 --masks ids/ --object 3 -o out
      amodal run bundle --frames rgbs/ --masks masks/ -o out --samples 5
      amodal run bundle --frames rgbs/ --masks masks/ -o out --pad --fps 2
      amodal run bundle --frames rgbs/ --masks masks/ -o out --propagate
      amodal run bundle --frames rgbs/ --masks masks.json --depth depth/ \\
          -o out --stage segment --guidance 1 --json
    """
    from .job import run_job
    from .run_data import RunOptions

    job = RunOptions.of({"bundle": bundle, **options})
    result = run_job(job)
    if not job.quiet:
        warn(result["warnings"])
    if job.as_json:
        print_json(result)
    elif not job.quiet:
        click.echo(f"Wrote {job.out} in {result['seconds']['total']:.1f} s:\n  {', '.join(result['files'])}")
