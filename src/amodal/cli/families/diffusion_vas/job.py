"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.cli.progress import StageBars, Watcher
from amodal.runtime.errors import InputError, argument
from amodal.runtime.families.diffusion_vas.running import CompleteInputs, Request, SegmentInputs
from amodal.runtime.files.atomic import check_output, staged_folder
from amodal.runtime.files.frames import frame_names, read_depth, read_frames
from amodal.runtime.files.masks import check_clip, read_masks
from amodal.runtime.model import Model, load
from amodal.runtime.pictures.padding import Padding

from .results import MARKER, describe, write_files
from .run_data import Clip, Found, RunOptions


def run_job(options: RunOptions) -> dict[str, Any]:
    """Runs the stages and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    given = (options.bundle, options.frames, options.masks, options.depth, options.amodal)
    inputs = [path for path in given if path is not None]
    check_output(options.out, options.overwrite, MARKER, inputs)
    bars = StageBars(Watcher(options.quiet), options.settings.steps, options.samples)
    with load(
        options.bundle,
        options.backend,
        memory=options.memory,
        vram=options.vram,
        engine_dir=options.engine_dir,
        shape=options.shape,
        device=options.device,
        threads=options.threads,
        verify=options.verify,
        progress=bars.component,
    ) as model:
        stages = _stages(options, model)
        clip = _read(options, model, stages)
        with staged_folder(options.out, options.overwrite, MARKER, inputs) as folder, bars.show(stages):
            found = _run(options, model, clip, stages, bars)
            bars.writing()
            files = write_files(folder, clip, found, options)
            return describe(folder, files, options, model, clip, found, start)


def _stages(options: RunOptions, model: Model) -> list[str]:
    there = list(model.manifest.tasks)
    wanted = [options.stage] if options.stage in ("segment", "complete") else ["segment", "complete"]
    if options.stage is None:
        wanted = [s for s in wanted if s in there] if "segment" in there else ["complete"]
    for stage in wanted:
        if stage not in there:
            raise InputError(
                f"bundle {options.bundle} has no {stage} stage; export it again with --{stage} CHECKPOINT, or choose "
                f"--stage {there[0]}."
            )
    if wanted == ["complete"] and options.amodal is None:
        raise InputError("the complete stage alone needs whole-object masks; give them with --amodal DIR.")
    for option, given in (("--samples", options.samples > 1), ("--pad", options.pad)):
        if given and "segment" not in wanted:
            raise InputError(f"{option} needs the segment stage, which finds the masks; leave it out, or --stage.")
    if options.propagate is not None and "complete" not in wanted:
        raise InputError("--propagate is about RGB, which the complete stage draws; leave it out, or --stage.")
    if "segment" in wanted:
        if options.amodal is not None:
            raise InputError("--amodal is for --stage complete; the segment stage finds the masks itself.")
        if options.depth is None and model.config.depth is None:
            raise InputError(
                f"bundle {options.bundle} has no depth component; give depth with --depth DIR, or export the bundle "
                "again with --depth CHECKPOINT."
            )
    return wanted


def _read(options: RunOptions, model: Model, stages: list[str]) -> Clip:
    frames = read_frames(options.frames, limit=model.config.frames)
    modal = read_masks(options.masks, options.object_id, (frames.shape[1], frames.shape[2]))
    depth = read_depth(options.depth) if options.depth is not None and "segment" in stages else None
    warnings = check_clip(frames, modal, depth)
    amodal = _read_amodal(options, frames) if stages == ["complete"] else None
    return Clip(frames, modal, depth, amodal, frame_names(options.frames), warnings)


def _read_amodal(options: RunOptions, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whole-object masks; --object is for those that hold several objects, which our own results do not."""
    size = (frames.shape[1], frames.shape[2])
    assert options.amodal is not None
    with argument("amodal"):
        try:
            amodal = read_masks(options.amodal, None, size, key="amodal")
        except InputError:
            if options.object_id is None:
                raise
            amodal = read_masks(options.amodal, options.object_id, size, key="amodal")
        check_clip(frames, amodal)
    return amodal


def _run(options: RunOptions, model: Model, clip: Clip, stages: list[str], bars: StageBars) -> Found:
    padding = Padding(clip.frames.shape[1], clip.frames.shape[2]) if options.pad else None
    request = Request(options.settings, options.seed, padding)
    seen = whole = None
    if "segment" in stages:
        rgb = clip.frames if clip.depth is None else None
        asked = replace(request, samples=options.samples, callback=bars.stage("segment"))
        seen = model.run("segment", SegmentInputs(clip.modal, clip.depth, rgb, asked))
    if "complete" in stages:
        masks, seed = (clip.amodal, options.seed) if seen is None else (seen.masks, seen.noise)
        asked = replace(request, seed=seed, propagate=options.propagate, callback=bars.stage("complete"))
        whole = model.run("complete", CompleteInputs(clip.frames, clip.modal, masks, asked))
    return Found(seen, whole, padding)
