"""What `amodal run` does with clips longer than the bundle's, and with several objects: a block after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from amodal.cli.console import settings_from
from amodal.cli.families.keeping import load
from amodal.cli.progress import ClipBars
from amodal.cli.viewing import check_views
from amodal.runtime.clips.noise import FrameNoise
from amodal.runtime.clips.windows import cut_blocks
from amodal.runtime.errors import AmodalError, InputError, argument
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.block_inputs import Amodal
from amodal.runtime.families.diffusion_vas.block_runner import Carry
from amodal.runtime.families.diffusion_vas.blocks import complete_blocks, segment_blocks
from amodal.runtime.files.atomic import check_output
from amodal.runtime.files.clip import ClipFiles
from amodal.runtime.files.clip_source import FileSource, open_clip
from amodal.runtime.files.frames import open_frames
from amodal.runtime.files.listing import join_ranges
from amodal.runtime.files.track_writing import write_one_object, write_tracks
from amodal.runtime.files.trial import require_space, try_names
from amodal.runtime.files.trimming import Trim
from amodal.runtime.files.unfinished import Unfinished, refuse_unfinished, unfinished_folder
from amodal.runtime.files.video_writing import require_video_encoder
from amodal.runtime.model import Model
from amodal.runtime.pictures.cropping import FEWEST_PIXELS

from .fitting import find_unlike_clip
from .job import inputs_of, loading_of, shape_of, stages_of, told_fps
from .long_carry import load_carry
from .long_identity import identity_of
from .long_layout import GIF_FRAMES, Facts, Notes
from .long_pictures import LongPictures
from .long_result import write_long_result
from .long_state import Job
from .long_writing import LongWriter
from .products import OVERLAY_BYTES, SHEET_BYTES, bytes_per_pixel
from .results import MARKER
from .showing import show_blocks


def needs_blocks(options: Mapping[str, Any]) -> bool:
    """Returns whether a clip is run block by block: it is longer than the bundle's, or has several objects or a gate.

    What is wrong with the clip or the bundle is left to those who read them.
    """
    check_output(options["out"], options["overwrite"], MARKER, inputs_of(options), options["resume"])
    if options["objects"] is not None or options["gate"] == "auto":
        return True
    trim = settings_from(Trim, options)
    with suppress(AmodalError, OSError):
        frames = open_frames(options["frames"], trim.end)
        if len(trim.choose(frames.count, frames.fps)) > int(Bundle(options["bundle"]).config.frames):
            return True
    if options["resume"]:
        refuse_unfinished(options["out"])
    return False


def run_long(options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the stages block by block and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    _refuse_short_only(options)
    check_views(options)
    bars = ClipBars(options["quiet"])
    with unfinished_folder(
        options["out"],
        identity_of(options),
        resume=options["resume"],
        overwrite=options["overwrite"],
        marker=MARKER,
        inputs=inputs_of(options),
    ) as run:
        shape = shape_of(options)
        with bars, load(options["bundle"], shape=shape, progress=bars.component, **loading_of(options)) as model:
            job = _prepare(run, options, model, bars)
            _complete(job, _segment(job))
            bars.phase("writing")
            return _finish(job, start)


def _refuse_short_only(options: Mapping[str, Any]) -> None:
    for name, given in (
        ("samples", options["samples"] > 1),
        ("pad", options["pad"]),
        ("crop", options["crop"] != "off"),
    ):
        if given:
            raise InputError(
                f"`{name}` is for one object in a clip of at most the bundle's frames; omit it, or run such clips one "
                "by one with `start` and `stop`, without `objects` and `gate`.",
                field=name,
            )


def _prepare(run: Unfinished, options: Mapping[str, Any], model: Model, bars: ClipBars) -> Job:
    """Reads the clip and tries what could fail later."""
    stages = tuple(stages_of(options, model))
    files = settings_from(ClipFiles, options, trim=settings_from(Trim, options), amodal=None)
    files = files if "segment" in stages else replace(files, depth=None)
    wanted = options["objects"]
    source = open_clip(files, wanted, bars.component)
    empty = source.empty
    source.objects = tuple(o for o in source.objects if o not in empty)
    options = {**options, "fps": told_fps(options, source.fps)}
    warnings: list[str] = []
    facts = Facts(
        source.count,
        source.size,
        source.objects,
        wanted is not None,
        source.names,
        stages,
        tuple(model.config.size),
        options["fps"],
        _videos(options, source.count, warnings),
        options["cutouts"],
        "complete" in stages and (model.config.propagate if options["propagate"] is None else options["propagate"]),
    )
    _try_writing(run, facts, "segment" in stages and not source.has_depth)
    notes = Notes(run.work, facts)
    notes.lines.cut(run.state.get("lines", 0))
    amodal = None if "segment" in stages else _given_masks(options, files, source)
    writer = LongWriter(run, facts, source.again(), notes, LongPictures(run.work, facts), amodal)
    warnings += find_unlike_clip(model.config, source)
    return Job(run, options, model, bars, source, empty, facts, writer, warnings)


def _videos(options: Mapping[str, Any], count: int, warnings: list[str]) -> tuple[str, ...]:
    """Returns the formats of the overlay; of a long clip mp4, where that can be written."""
    if not options["overlay"]:
        return ()
    wanted = options["video"]
    if wanted is None:
        wanted = "gif"
        if count > GIF_FRAMES:
            with suppress(AmodalError):
                require_video_encoder()
                wanted = "mp4"
    if wanted != "gif":
        require_video_encoder()
    if wanted != "mp4" and count > GIF_FRAMES:
        step = -(-count // GIF_FRAMES)
        warnings.append(f'overlay.gif shows one frame in {step}; `video="mp4"` shows all.')
    return ("gif", "mp4") if wanted == "both" else (wanted,)


def _try_writing(run: Unfinished, facts: Facts, depth: bool) -> None:
    """Tries names and room for what is not written yet; `depth` is computed and kept for a while."""
    try_names(run.work, facts.pngs)
    done = sum(stage["next"] / stage["count"] for name in facts.stages if (stage := run.state.get(name)))
    pixels = facts.count * facts.size[0] * facts.size[1]
    pictures = pixels * len(facts.objects) * bytes_per_pixel(facts.stages, facts.cutouts)
    overlay = facts.count * OVERLAY_BYTES * len(facts.videos)
    kept = 4 * facts.count * facts.at[0] * facts.at[1] if depth else 0
    require_space(run.folder, round((pictures + overlay) * (1 - done / len(facts.stages)) + SHEET_BYTES + kept))


def _given_masks(options: Mapping[str, Any], files: ClipFiles, source: FileSource) -> Amodal:
    """Opens whole-object masks for the complete stage alone."""
    several = options["objects"] is not None
    given = replace(files, masks=options["amodal"], missing_masks="empty")
    with argument("amodal"):
        masks = open_clip(given, source.objects if several else None, key="amodal")
    names = dict(zip(source.objects, masks.objects, strict=True))
    return lambda object_id, numbers: masks.modal(names[object_id], numbers)


def _segment(job: Job) -> Any:
    """Runs the segment stage where it is asked for and not finished; returns the seed of the complete stage."""
    if "segment" not in job.facts.stages:
        return job.options["seed"]
    if job.writer.finished("segment"):
        return FrameNoise(**job.run.state["segment"]["noise"])
    job.bars.begin("segment")
    seed = job.options["seed"]
    depth = job.writer.notes.depth
    for block in segment_blocks(job.model.session, job.source, job.request, _carry_of(job, "segment"), depth):
        job.bars.phase("writing")
        job.writer.segmented(block)
        seed = block.noise
    depth.unlink(missing_ok=True)
    return seed


def _complete(job: Job, seed: Any) -> None:
    """Runs the complete stage where it is asked for and not finished."""
    if "complete" not in job.facts.stages or job.writer.finished("complete"):
        return
    job.bars.begin("complete")
    request, places = replace(job.request, seed=seed), {o: i for i, o in enumerate(job.facts.objects)}

    def found(object_id: Any, numbers: range) -> Any:
        return job.writer.notes.masks.read(numbers.start, numbers.stop)[:, places[object_id]]

    amodal = job.writer.amodal or found
    for block in complete_blocks(job.model.session, job.source, amodal, request, _carry_of(job, "complete")):
        job.bars.phase("writing")
        job.writer.completed(block)


def _carry_of(job: Job, stage: str) -> Carry | None:
    state = job.run.state.get(stage)
    return None if state is None else load_carry(job.run.work / state["carry"])


def _finish(job: Job, start: float) -> dict[str, Any]:
    """Writes what is of the whole clip, result.json last; returns its content."""
    facts, folder, config = job.facts, job.run.folder, job.model.config
    windows = job.options["windows"]
    blocks = cut_blocks(facts.count, config.frames, windows, job.options["block_frames"])
    lines = job.writer.notes.lines
    if facts.several:
        write_tracks(folder / "masks.json", lines, facts.names or facts.pngs, facts.size, job.source.fps)
    else:
        write_one_object(folder / "masks.json", lines, facts.names)
    if facts.videos:
        job.writer.pictures.finish(folder, blocks, job.writer.notes, (windows, config.frames))
    shown = show_blocks(job)
    return write_long_result(job, blocks, [*job.source.notes, *_shrunk(job), *job.warnings, *shown], start)


def _shrunk(job: Job) -> list[str]:
    size = "x".join(map(str, job.facts.at))
    return [
        f"Fewer than {FEWEST_PIXELS} visible pixels of {_called(job.facts, int(index))} are left at the networks' size "
        f"({size}) in frame {join_ranges(frames)}."
        for index, frames in job.run.state.get("shrunk", {}).items()
    ]


def _called(facts: Facts, index: int) -> str:
    return f"object {facts.labels[index]}" if facts.several else "the object"
