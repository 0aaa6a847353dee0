"""`amodal batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Parsed, print_json, warn
from .logs import verbose_option
from .options import COUNT, FILE, json_option, quiet_option

if TYPE_CHECKING:
    from amodal.bench.batches.on_ray import Cluster
    from amodal.bench.batches.pool import Seat


def _shard(text: str) -> Any:
    from amodal.bench.batches.shards import Shard

    return Shard.parse(text)


@click.command("batch")
@click.argument("clips", type=click.Path(path_type=Path))
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF amodal run]")
@click.option("-o", "--out", required=True, metavar="OUT", help="Folder to write, or an address such as s3://bucket/x.")
@click.option("--bundle", default="default", help="The bundle that all clips are run with.")
@click.option(
    "--workers", type=COUNT, metavar="N", help="Processes, a clip at a time each. Default: one per GPU, or one."
)
@click.option("--resume", is_flag=True, help="Go on with what is in OUT.")
@click.option(
    "--shard",
    type=Parsed("I/N", _shard),
    default="1/1",
    help="Only every N-th clip, from the I-th on: for N machines without a cluster, all into one OUT.",
)
@click.option("--retries", type=click.IntRange(min=0), default=2, help="Attempts at a clip after one that failed.")
@click.option("--retry-quarantined", is_flag=True, help="With --resume: also try what is in quarantine again.")
@click.option("--on", type=click.Choice(["local", "ray"]), default="local", help="Where workers run.")
@click.option("--address", help="With --on ray: auto, HOST:PORT or ray://HOST:PORT. Default: Ray is started here.")
@click.option(
    "--worker-cpus", type=click.FloatRange(min=0), default=1.0, metavar="N", help="With --on ray: cores of a worker."
)
@click.option(
    "--worker-gpus",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="N",
    help="With --on ray: GPUs of a worker; 0.5 for two workers on one.",
)
@click.option("--metrics", type=FILE, help="File for Prometheus's figures. Default: metrics.prom in OUT.")
@json_option("the summary")
@quiet_option()
@verbose_option
def command(**options: Any) -> None:
    """Run many clips, over the GPUs of this machine or over a cluster, and resume after whatever stopped them.

    CLIPS is a folder with a folder for each clip, which has frames (or rgb, rgbs, video), masks and perhaps depth, as
    folders or files; or a JSONL file with a line for each clip: {"id": "a", "frames": "a.mp4", "masks": "a/",
    "options": {"seed": 4}}, with paths relative to the file. Options of `amodal run` for all clips come after --.

    Writes clips/ID/ for each clip, as `amodal run` does; units/ID.json says how it went, summary.json how all went, and
    metrics.prom the same for Prometheus. A clip that cannot be run is put into quarantine with the reason, and the exit
    code is 1.

    \b
    Examples:
      amodal batch clips/ -o out
      amodal batch clips.jsonl -o out --bundle bundle --resume -- --steps 10
      amodal batch clips/ -o out --workers 4 -- --threads 1 --no-overlay
      amodal batch clips/ -o /shared/out --shard 2/8
      amodal batch clips.jsonl -o s3://bucket/out --on ray --address auto \\
          --workers 16 --worker-gpus 1
    """
    from amodal.bench.batches.batch import Plan, run_batch
    from amodal.bench.running.files import write_whole

    from .batches.clips import read_clips
    from .batches.running import ClipRunner, settings_of
    from .progress import counting

    _refuse_unused(options)
    bundle, given = options["bundle"], options["run_options"]
    clips, context = read_clips(options["clips"], bundle, given)
    job = _job(options, settings_of(context), ClipRunner)
    file = options["metrics"]
    plan = Plan(
        _where(options, context),
        options["shard"],
        options["resume"],
        options["retry_quarantined"],
        None if file is None else lambda text: write_whole(file, text),
    )
    with counting(options["quiet"] or options["as_json"], "batch") as progress:
        summary = run_batch(job, clips, plan, progress)
    _tell(summary, options)


def _job(options: dict[str, Any], settings: dict[str, Any], runner: type) -> Any:
    from amodal import __version__
    from amodal.bench.batches.work import Job
    from amodal.runtime.bundle.manifest import MANIFEST_NAME
    from amodal.runtime.bundle.reading import sha256_of
    from amodal.runtime.families import Bundle

    bundle, out = options["bundle"], options["out"]
    identity = {
        "amodal": __version__,
        "bundle": sha256_of(Bundle(bundle).path / MANIFEST_NAME),
        "options": settings,
    }
    arguments = {"bundle": bundle, "options": list(options["run_options"])}
    return Job(out, identity, f"{runner.__module__}:{runner.__name__}", arguments, retries=options["retries"])


def _where(options: dict[str, Any], context: click.Context) -> Cluster | list[Seat]:
    from amodal.bench.batches.on_ray import Cluster
    from amodal.bench.batches.pool import seats_for, usable_gpus

    workers = options["workers"]
    if options["on"] == "ray":
        return Cluster(options["address"], workers or 1, options["worker_cpus"], options["worker_gpus"])
    from amodal.runtime.diagnosis import gpus

    device = context.params.get("device")
    found = [] if device == "cpu" else usable_gpus(gpus())
    if device is not None and ":" in str(device):
        found = []  # the user chose one
    import os

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return seats_for(workers or len(found) or 1, found, cores)


def _refuse_unused(options: dict[str, Any]) -> None:
    from amodal.runtime.errors import InputError

    if options["on"] == "local":
        for name, given in (
            ("address", options["address"] is not None),
            ("worker_gpus", options["worker_gpus"] != 0),
            ("worker_cpus", options["worker_cpus"] != 1),
        ):
            if given:
                raise InputError(f'`{name}` is about a Ray cluster; add `on="ray"`, or omit it.', field=name)
    if options["retry_quarantined"] and not options["resume"]:
        raise InputError("`retry_quarantined` is about results that are there; add `resume=True`, or omit it.")


def _tell(summary: dict[str, Any], options: dict[str, Any]) -> None:
    from amodal.runtime.paths import displayed

    aside = summary["quarantine"]
    if options["as_json"]:
        print_json(summary)
    elif not options["quiet"]:
        warn([f"{key}: {reason}" for key, reason in list(aside.items())[:5]])
        before = f" ({summary['done_before']} before)" if summary["done_before"] else ""
        click.echo(
            f"Wrote {displayed(str(options['out']))}: {summary['done']} of {summary['clips']} clips done{before}, "
            f"{summary['quarantined']} in quarantine, in {summary['seconds']:.1f} s."
        )
    if summary["quarantined"]:
        raise click.exceptions.Exit(1)
