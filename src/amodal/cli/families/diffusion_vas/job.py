"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from amodal.cli.console import settings_from
from amodal.cli.families.keeping import load
from amodal.cli.progress import StageBars
from amodal.cli.viewing import check_views
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.config import STAGES
from amodal.runtime.families.diffusion_vas.running import CompleteInputs, Request, SegmentInputs
from amodal.runtime.families.diffusion_vas.shape import RunShape, run_shape
from amodal.runtime.files.atomic import staged_folder
from amodal.runtime.files.clip import Clip, ClipFiles, read_clip
from amodal.runtime.files.trimming import Trim
from amodal.runtime.model import Model
from amodal.runtime.pictures.depth_kind import DepthKind
from amodal.runtime.pictures.padding import Padding

from .fitting import choose_crop, cut_clip, find_concerns, paste, require_fit
from .products import try_writing, write_files
from .results import MARKER, Outputs, settings_of, write_result
from .showing import show_clip

_LEAST_FPS, _MOST_FPS = 1.0, 30.0  # what Stable Video Diffusion was trained with
_LOAD = ("backend", "memory", "vram", "engine_dir", "device", "threads", "verify")


def shape_of(options: Mapping[str, Any]) -> RunShape:
    """What determines the memory of the run."""
    stage = options["stage"]
    tasks: tuple[str, ...] = STAGES if stage == "both" else (stage,) if stage else ()
    fps = 1.0 if options["fps"] == "auto" else options["fps"]  # not known yet, and takes no memory
    settings = settings_of({**options, "fps": fps})
    return run_shape(tasks, settings, samples=options["samples"], depth=options["depth"] is None)


def inputs_of(options: Mapping[str, Any]) -> list[Any]:
    """Returns the files and folders that a run reads."""
    return [options[name] for name in ("bundle", "frames", "masks", "depth", "amodal") if options[name] is not None]


def loading_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `load`."""
    return {name: options[name] for name in _LOAD}


def run_job(options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the stages and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    check_views(options)
    out, overwrite = options["out"], options["overwrite"]
    shape = shape_of(options)
    bars = StageBars(options["quiet"], options["steps"], options["samples"])
    with (
        staged_folder(out, overwrite, MARKER, inputs_of(options)) as folder,
        load(options["bundle"], shape=shape, progress=bars.component, **loading_of(options)) as model,
    ):
        stages = stages_of(options, model)
        clip = _read(options, model, stages)
        options = {**options, "fps": told_fps(options, clip.fps)}
        try_writing(folder, clip, stages, options)
        with bars.show(stages):
            outputs = _run(options, model, clip, stages, bars)
            bars.phase("writing")
            files = write_files(folder, clip, outputs, stages, options)
            files += show_clip(folder, clip, outputs, options)
            return write_result(folder, files, options, model, clip, outputs, start)


def stages_of(options: Mapping[str, Any], model: Model) -> list[str]:
    """Returns the stages that run; raises `InputError` for options that do not go together."""
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
    if options["crop"] != "off" and options["pad"]:
        raise InputError(
            "--crop runs on a part of the frame and --pad on more than the frame; choose one: --pad for an object that "
            "leaves the frame, --crop for a small one."
        )
    for option, given in (("--samples", options["samples"] > 1), ("--pad", options["pad"])):
        if given and "segment" not in wanted:
            raise InputError(f"{option} needs the segment stage, which computes the masks; omit it, or --stage.")
    if options["video"] not in (None, "gif") and not options["overlay"]:
        raise InputError("--video is the format of the overlay, which --no-overlay leaves out; omit one of them.")
    if options["cutouts"] and "complete" not in wanted:
        raise InputError("--cutouts needs the complete stage, which draws the whole object; omit it, or --stage.")
    if options["propagate"] is not None and "complete" not in wanted:
        raise InputError("--propagate is about RGB, which the complete stage draws; omit it, or --stage.")
    if options["depth"] is None and options["depth_kind"] is not None:
        raise InputError("--depth-kind says what --depth holds; give --depth, or omit --depth-kind.")
    if options["depth"] is not None and options["depth_channels"] is not None:
        raise InputError("--depth-channels is about the depth network, which --depth replaces; omit one of them.")
    if "segment" in wanted and options["amodal"] is not None:
        raise InputError("--amodal is for --stage complete; the segment stage computes the masks itself.")
    require_fit(options, model.config, wanted)
    return wanted


def _read(options: Mapping[str, Any], model: Model, stages: list[str]) -> Clip:
    trim = settings_from(Trim, options)
    needed = {"depth": "segment" in stages, "amodal": stages == ["complete"]}
    left_out = {name: None for name, is_needed in needed.items() if not is_needed}
    return read_clip(settings_from(ClipFiles, options, trim=trim, **left_out), model.config.frames)


def told_fps(options: Mapping[str, Any], fps: float | None) -> float:
    """Returns the frame rate that the model is told; `fps` is that of the frames, if it is known."""
    if options["fps"] != "auto":
        return float(options["fps"])
    if fps is None:
        raise InputError("--fps auto needs frames with a frame rate, such as a video; give a number.")
    return min(max(fps, _LEAST_FPS), _MOST_FPS)


def _run(options: Mapping[str, Any], model: Model, clip: Clip, stages: list[str], bars: StageBars) -> Outputs:
    """Runs the stages on the frame, or on the window of --crop; adds what may go wrong to the clip's warnings."""
    crop = choose_crop(options, clip)
    given = clip if crop is None else cut_clip(clip, crop)
    padding = Padding(clip.frames.shape[1], clip.frames.shape[2]) if options["pad"] else None
    clip.warnings.extend(find_concerns(given, model.config, crop, padding))
    outputs = _run_stages(options, model, given, padding, stages, bars)
    if crop is None:
        return outputs
    pasted, concerns = paste(outputs, crop)
    clip.warnings.extend(concerns)
    return pasted


def _run_stages(
    options: Mapping[str, Any], model: Model, clip: Clip, padding: Padding | None, stages: list[str], bars: StageBars
) -> Outputs:
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
