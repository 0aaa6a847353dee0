"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.cli.progress import StageBars
from amodal.runtime.errors import InputError, argument
from amodal.runtime.families.diffusion_vas.config import STAGES
from amodal.runtime.families.diffusion_vas.running import CompleteInputs, Request, SegmentInputs
from amodal.runtime.families.diffusion_vas.shape import RunShape, run_shape
from amodal.runtime.files.atomic import check_output, staged_folder
from amodal.runtime.files.depth import open_depth
from amodal.runtime.files.frames import frame_names, read_frames
from amodal.runtime.files.masks import check_clip, read_masks
from amodal.runtime.model import Model, load
from amodal.runtime.pictures.depth_kind import DepthKind
from amodal.runtime.pictures.padding import Padding

from .results import MARKER, Clip, Outputs, settings_of, write_files, write_result

_LOAD = ("backend", "memory", "vram", "engine_dir", "device", "threads", "verify")


def shape_of(options: Mapping[str, Any]) -> RunShape:
    """What determines the memory of the run."""
    stage = options["stage"]
    tasks: tuple[str, ...] = STAGES if stage == "both" else (stage,) if stage else ()
    return run_shape(tasks, settings_of(options), samples=options["samples"], depth=options["depth"] is None)


def run_job(options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the stages and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    out, overwrite = options["out"], options["overwrite"]
    shape = shape_of(options)
    inputs = [options[name] for name in ("bundle", "frames", "masks", "depth", "amodal") if options[name] is not None]
    check_output(out, overwrite, MARKER, inputs)
    bars = StageBars(options["quiet"], options["steps"], options["samples"])
    loading = {name: options[name] for name in _LOAD}
    with load(options["bundle"], shape=shape, progress=bars.component, **loading) as model:
        stages = _stages(options, model)
        clip = _read(options, model, stages)
        with staged_folder(out, overwrite, MARKER, inputs) as folder, bars.show(stages):
            outputs = _run(options, model, clip, stages, bars)
            bars.phase("writing")
            files = write_files(folder, clip, outputs, options)
            return write_result(folder, files, options, model, clip, outputs, start)


def _stages(options: Mapping[str, Any], model: Model) -> list[str]:
    stage, bundle, available = options["stage"], options["bundle"], list(model.manifest.tasks)
    wanted = [stage] if stage in ("segment", "complete") else ["segment", "complete"]
    if stage is None:
        wanted = [s for s in wanted if s in available] if "segment" in available else ["complete"]
    for name in wanted:
        if name not in available:
            raise InputError(
                f"bundle {bundle} has no {name} stage; export it again with --{name} CHECKPOINT, or choose --stage "
                f"{available[0]}."
            )
    if wanted == ["complete"] and options["amodal"] is None:
        raise InputError("the complete stage alone needs whole-object masks; give them with --amodal DIR.")
    for option, given in (("--samples", options["samples"] > 1), ("--pad", options["pad"])):
        if given and "segment" not in wanted:
            raise InputError(f"{option} needs the segment stage, which computes the masks; omit it, or --stage.")
    if options["propagate"] is not None and "complete" not in wanted:
        raise InputError("--propagate is about RGB, which the complete stage draws; omit it, or --stage.")
    if options["depth"] is None and options["depth_kind"] is not None:
        raise InputError("--depth-kind says what --depth holds; give --depth, or omit --depth-kind.")
    if options["depth"] is not None and options["depth_channels"] is not None:
        raise InputError("--depth-channels is about the depth network, which --depth replaces; omit one of them.")
    if "segment" in wanted:
        if options["amodal"] is not None:
            raise InputError("--amodal is for --stage complete; the segment stage computes the masks itself.")
        if options["depth"] is None and model.config.depth is None:
            raise InputError(
                f"bundle {bundle} has no depth component; give depth with --depth DIR, or export the bundle again "
                "with --depth CHECKPOINT."
            )
    return wanted


def _read(options: Mapping[str, Any], model: Model, stages: list[str]) -> Clip:
    frames = read_frames(options["frames"], limit=model.config.frames)
    modal = read_masks(options["masks"], options["object_id"], (frames.shape[1], frames.shape[2]))
    depth, notes = None, list[str]()
    if options["depth"] is not None and "segment" in stages:
        depth, notes = open_depth(options["depth"]).relative(options["depth_kind"])
    warnings = [*check_clip(frames, modal, depth), *notes]
    amodal = _read_amodal(options, frames) if stages == ["complete"] else None
    return Clip(frames, modal, depth, amodal, frame_names(options["frames"]), warnings)


def _read_amodal(options: Mapping[str, Any], frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Reads whole-object masks of one object or, with --object, of several."""
    size = (frames.shape[1], frames.shape[2])
    with argument("amodal"):
        try:
            amodal = read_masks(options["amodal"], None, size, key="amodal")
        except InputError:
            if options["object_id"] is None:
                raise
            amodal = read_masks(options["amodal"], options["object_id"], size, key="amodal")
        check_clip(frames, amodal)
    return amodal


def _run(options: Mapping[str, Any], model: Model, clip: Clip, stages: list[str], bars: StageBars) -> Outputs:
    padding = Padding(clip.frames.shape[1], clip.frames.shape[2]) if options["pad"] else None
    request = Request(settings_of(options), options["seed"], padding)
    segmentation = completion = None
    if "segment" in stages:
        rgb = clip.frames if clip.depth is None else None
        kind: DepthKind | None = None if clip.depth is None else "relative"  # it was read as that
        segment = replace(request, samples=options["samples"], callback=bars.stage("segment"))
        segmentation = model.run("segment", SegmentInputs(clip.modal, clip.depth, rgb, segment, kind))
    if "complete" in stages:
        masks, seed = (segmentation.masks, segmentation.noise) if segmentation else (clip.amodal, options["seed"])
        complete = replace(request, seed=seed, propagate=options["propagate"], callback=bars.stage("complete"))
        completion = model.run("complete", CompleteInputs(clip.frames, clip.modal, masks, complete))
    return Outputs(segmentation, completion, padding)
