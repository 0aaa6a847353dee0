"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.atomic import check_output, staged_folder
from amodal.runtime.errors import InputError
from amodal.runtime.frames import frame_names, read_depth, read_frames
from amodal.runtime.masks import check_clip, read_masks
from amodal.runtime.model import Completion, Model, Segmentation, load
from amodal.runtime.padding import Padding, pad_depth
from amodal.runtime.sampler import Churn

from .progress import StageBars, Watcher
from .results import MARKER, describe, write_files


@dataclass(frozen=True)
class RunOptions:
    """The options of `amodal run`, by their names there."""

    bundle: Path
    frames: str
    masks: str
    out: str
    depth: str | None
    stage: str | None
    amodal: str | None
    object_id: int | None
    seed: int
    samples: int
    pad: bool
    steps: int
    guidance: tuple[float, float]
    fps: float
    churn: float
    churn_sigmas: tuple[float, float]
    churn_noise: float
    context: Any
    decode_chunk: int | None
    cfg_rows: Any
    backend: str
    device: str
    threads: int | None
    memory: Any
    verify: bool
    overlay: bool
    overwrite: bool
    as_json: bool
    quiet: bool

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments that both stages share."""
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "fps": self.fps,
            "churn": Churn(self.churn, *self.churn_sigmas, self.churn_noise),
            "context": self.context,
            "decode_chunk": self.decode_chunk,
            "cfg_rows": self.cfg_rows,
        }


@dataclass(frozen=True)
class Clip:
    """What was read: frames uint8 [T, H, W, 3], masks bool [T, H, W], depth [T, h, w], and the frames' file names."""

    frames: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    amodal: NDArray[np.bool_] | None
    names: list[str] | None
    warnings: list[str]

    def padded(self, padding: Padding) -> Clip:
        """The same with room around it: white frames, empty masks, and depth as near as the nearest."""
        return replace(
            self,
            frames=padding.pad(self.frames, 255),
            modal=padding.pad(self.modal, False),
            depth=None if self.depth is None else pad_depth(self.depth),
            amodal=None if self.amodal is None else padding.pad(self.amodal, False),
        )


@dataclass(frozen=True)
class Found:
    """What the stages found, at the frames' size.

    Attributes:
        samples: whole-object masks bool [T, H, W] of each seed, the run's own first; empty without `segment`.
        completed: RGB uint8 [T, H, W, 3] of the first sample.
        padded: the samples' masks in the padded frame, with --pad.
        padding: the room around the frame, with --pad.
        outputs: the stages' own results, for their times.
    """

    samples: list[NDArray[np.bool_]]
    completed: NDArray[np.uint8] | None
    padded: list[NDArray[np.bool_]]
    padding: Padding | None
    outputs: dict[str, Segmentation | Completion]


def run_job(options: RunOptions) -> dict[str, Any]:
    """Runs the stages and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    given = (options.bundle, options.frames, options.masks, options.depth, options.amodal)
    inputs = [path for path in given if path is not None]
    check_output(options.out, options.overwrite, MARKER, inputs)
    if options.samples < 1:
        raise InputError(f"--samples {options.samples}: expected 1 or more.")
    bars = StageBars(Watcher(options.quiet), options.steps)
    with load(
        options.bundle,
        options.backend,
        memory=options.memory,
        device=options.device,
        threads=options.threads,
        verify=options.verify,
        watch=bars.component,
    ) as model:
        stages = _stages(options, model)
        clip = _read(options, model, stages)
        shown = [*_samples(options, stages), *(["complete"] if "complete" in stages else [])]
        with staged_folder(options.out, options.overwrite, MARKER, inputs) as folder, bars.show(shown):
            found = _run(options, model, clip, stages, bars)
            bars.writing()
            files = write_files(folder, clip, found, options)
            return describe(folder, files, options, model, clip, found, start)


def _stages(options: RunOptions, model: Model) -> list[str]:
    there = list(model.manifest.stages)
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
    if "segment" in wanted:
        if options.amodal is not None:
            raise InputError("--amodal is for --stage complete; the segment stage finds the masks itself.")
        if options.depth is None and model.manifest.depth is None:
            raise InputError(
                f"bundle {options.bundle} has no depth component; give depth with --depth DIR, or export the bundle "
                "again with --depth CHECKPOINT."
            )
    return wanted


def _read(options: RunOptions, model: Model, stages: list[str]) -> Clip:
    frames = read_frames(options.frames, limit=model.manifest.frames)
    modal = read_masks(options.masks, options.object_id, (frames.shape[1], frames.shape[2]))
    depth = read_depth(options.depth) if options.depth is not None and "segment" in stages else None
    warnings = check_clip(frames, modal, depth)
    amodal = _read_amodal(options, frames) if stages == ["complete"] else None
    return Clip(frames, modal, depth, amodal, frame_names(options.frames), warnings)


def _read_amodal(options: RunOptions, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whole-object masks; --object is for those that hold several objects, which our own results do not."""
    size = (frames.shape[1], frames.shape[2])
    assert options.amodal is not None
    try:
        try:
            amodal = read_masks(options.amodal, None, size, key="amodal")
        except InputError:
            if options.object_id is None:
                raise
            amodal = read_masks(options.amodal, options.object_id, size, key="amodal")
        check_clip(frames, amodal)
    except InputError as error:  # whose sentence is about visible masks
        raise InputError(str(error).replace("--masks", "--amodal")) from error
    return amodal


def _samples(options: RunOptions, stages: list[str]) -> list[str]:
    """What the progress bars call each sample."""
    if "segment" not in stages:
        return []
    return ["segment", *(f"sample {index + 1}" for index in range(1, options.samples))]


def _run(options: RunOptions, model: Model, clip: Clip, stages: list[str], bars: StageBars) -> Found:
    padding = None
    if options.pad:
        padding = Padding(*clip.frames.shape[1:3])
        if clip.depth is None and "segment" in stages:
            clip = replace(clip, depth=model.depth(clip.frames))
        clip = clip.padded(padding)
    elif options.samples > 1 and clip.depth is None and "segment" in stages:
        clip = replace(clip, depth=model.depth(clip.frames))  # once, for all samples

    samples: list[NDArray[np.bool_]] = []
    seen: Segmentation | None = None
    for index, name in enumerate(_samples(options, stages)):
        sample = model.segment(
            clip.modal,
            depth=clip.depth,
            rgb=clip.frames if clip.depth is None else None,
            seed=options.seed + index,
            callback=bars.stage(name),
            **options.sampling,
        )
        samples.append(sample.masks_full)
        seen = seen or sample
    outputs: dict[str, Segmentation | Completion] = {} if seen is None else {"segment": seen}
    completed = None
    if "complete" in stages:
        whole = model.complete(
            clip.frames,
            clip.modal,
            seen.masks if seen else clip.amodal,
            seed=seen.noise if seen else options.seed,
            callback=bars.stage("complete"),
            **options.sampling,
        )
        outputs["complete"], completed = whole, whole.frames_full
    if padding is None:
        return Found(samples, completed, [], None, outputs)
    cut = [padding.crop(masks) for masks in samples]
    return Found(cut, None if completed is None else padding.crop(completed), samples, padding, outputs)
