"""`amodal bench stream`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from amodal.cli.console import SIZE, human_bytes, print_json, table
from amodal.cli.options import ABOVE_ZERO, COUNT, bundle_argument, execution_options, json_option


@click.command("stream")
@bundle_argument
@click.option("--rate", type=ABOVE_ZERO, default=30.0, help="Frames a second.")
@click.option("--objects", type=COUNT, default=1, metavar="N", help="Objects in each frame.")
@click.option("--seconds", type=ABOVE_ZERO, default=60.0, help="Seconds of the stream.")
@click.option("--frame-size", type=SIZE, default="480x640", metavar="HxW", help="Size of the frames.")
@click.option("--every", type=COUNT, help="New frames from window to window. Default: 2; 1 of SAMEO.")
@click.option("--lookahead", type=click.IntRange(min=0), help="Frames by which results lag. Default: 2.")
@click.option("--deadline", type=ABOVE_ZERO, metavar="S", help="Seconds that a window may take. Default: no limit.")
@click.option(
    "--preset",
    type=click.Choice(["exact", "balanced", "fast", "auto"]),
    help="25, 10 or 6 (the default) steps, or the most for which there is time.",
)
@click.option(
    "--stub-ms",
    type=ABOVE_ZERO,
    metavar="MS",
    help="Wait instead of running Diffusion-VAS: milliseconds of a window of 6 steps. Shows what a stream costs.",
)
@click.option("--real-time", is_flag=True, help="Play on the wall clock, and compute in a thread of its own.")
@execution_options()
@json_option("the figures")
def command(**options: Any) -> None:
    """Play a stream at a rate: how old results are, what is dropped, which deadlines are missed, how memory grows.

    Drawn objects are played on a simulated clock that runs while something computes, so that an hour of a stream takes
    as long as its windows. Frames that come meanwhile wait or are dropped as in real time (--real-time).

    \b
    Examples:
      amodal bench stream default --rate 30 --objects 2
      amodal bench stream default --rate 8 --preset auto --deadline 0.25
      amodal bench stream default-sameo --rate 30 --objects 3
      amodal bench stream default --stub-ms 50 --seconds 3600
    """
    from amodal.bench.measures.streaming import Played, measure_stream
    from amodal.cli.console import settings_from
    from amodal.cli.progress import activity

    from .output import execution_from

    stub = options["stub_ms"]
    given = {"size": options["frame_size"], "stub": None if stub is None else stub / 1000}
    played = settings_from(Played, options, **given)
    with activity(options["as_json"], "stream") as progress:
        found = measure_stream(options["bundle"], execution_from(options), played, progress=progress)
    if options["as_json"]:
        print_json(found)
    else:
        click.echo(table(["", "measured"], list(_rows(found)), 2))


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    frames, windows = found["frames"], found["windows"]
    yield "frames", ", ".join(f"{count} {name}" for name, count in frames.items())
    yield "age of results", _times(found["age_s"])
    yield "windows", f"{windows['run']}, each {_times(windows['seconds'])}"
    if windows["own_s"] is not None:
        yield "of that the stream itself", _times(windows["own_s"])
    yield "handing in a frame", _times(found["push_s"])
    if windows["deadline_misses"] is not None:
        yield "windows after the deadline", str(windows["deadline_misses"])
    yield "windows by steps", ", ".join(f"{count} with {steps}" for steps, count in windows["steps"].items()) or "none"
    yield "objects", ", ".join(f"{count} {status}" for status, count in found["objects"].items()) or "none"
    for name, memory in found["memory"].items():
        if memory is not None and memory["growth"] is not None:
            sizes = f"{human_bytes(memory['settled'])} settled, {human_bytes(memory['last'])} at the end"
            yield f"memory, {name.replace('_', ' ')}", f"{sizes} ({memory['growth']:+.1%})"


def _times(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "none"
    return ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in found.items())
