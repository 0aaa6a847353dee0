"""`amodal live`."""

from __future__ import annotations

from typing import Any

import click

from .console import warn
from .logs import verbose_option
from .options import ABOVE_ZERO, COUNT, bundle_argument, execution_options, folder_options, quiet_option
from .viewing import view_options


@click.command("live")
@bundle_argument
@click.option(
    "--source",
    required=True,
    metavar="N|URL|FILE|DIR",
    help="Frames: a camera's number, an address (rtsp://...), or a video or folder that is played like a camera.",
)
@click.option(
    "--masks-from",
    required=True,
    metavar="COMMAND|DIR|FILE|node",
    help="Visible masks: a program that is asked about each frame (docs/live.md), or, for a video or folder, masks "
    "in files as `amodal run` reads them.",
)
@click.option("--depth", metavar="DIR|FILE", help="Depth in files, for a video or folder with masks in files.")
@click.option(
    "--depth-kind",
    type=click.Choice(["relative", "inverse", "metric"]),
    help="What the numbers of depth mean, as for `amodal run`.",
)
@click.option("--rate", type=ABOVE_ZERO, metavar="HZ", help="Frames a second: at most from a camera; of played files.")
@click.option("--deadline", type=ABOVE_ZERO, metavar="S", help="Seconds for a window; older results are late.")
@click.option(
    "--preset",
    type=click.Choice(["exact", "balanced", "fast", "auto"]),
    help="Sampler steps: 25, 10, 6, or (auto, the default) the most for which there is time.",
)
@click.option("--every", type=COUNT, metavar="N", help="New frames from window to window. Default: 2; 1 of SAMEO.")
@click.option("--lookahead", type=click.IntRange(min=0), metavar="N", help="Frames by which results lag. Default: 2.")
@click.option("--timeout", type=ABOVE_ZERO, default=10.0, metavar="S", help="Seconds for COMMAND's answer.")
@click.option("--frames", "limit", type=COUNT, metavar="N", help="End after N frames. Default: the end, or Ctrl-C.")
@folder_options("OUT", required=False)
@view_options
@execution_options()
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each result, and one with the counts.")
@quiet_option()
@verbose_option
def command(**options: Any) -> None:
    """Find whole objects in the frames of a camera, in time.

    Whatever comes while the model computes is part of the next window or left out: results are never queued. Ctrl-C
    ends the loop, and everything that was written can be read.

    With -o, writes objects/ID/amodal_masks/FRAME.png, results.jsonl with the age and status of each result, and
    result.json with the counts. They are kept, too, if the camera or the program fails for good in the middle.

    \b
    Examples:
      amodal live bundle --source 0 --masks-from "python segment.py" --view rerun:live
      amodal live default --source video.mp4 --masks-from masks/ \\
          --depth depth/ -o out --html
      amodal live bundle --source rtsp://camera/1 --masks-from ./segment \\
          --rate 10 --deadline 0.1 --json
    """
    import json

    from .lives.running import run_live

    summary, failed = run_live(options)
    if options["as_json"]:
        click.echo(json.dumps({"summary": summary}))
    elif not options["quiet"]:
        click.echo(described(summary))
    if not options["quiet"]:
        warn(summary["warnings"])
    if failed is not None:
        raise failed


def described(summary: dict[str, Any]) -> str:
    """Returns what happened, in sentences."""
    ages = summary["age_seconds"]
    told = "" if ages is None else f", {ages['p50']:.2f} s old (median; {ages['p99']:.2f} s p99)"
    return (
        f"{summary['frames']} frames, {summary['results']} results{told}: {summary['dropped']} dropped at the source, "
        f"{summary['skipped']} skipped by the stream, {summary['unknown']} without masks, "
        f"{summary['refused']} refused, {summary['late']} late."
    )
