"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.atomic import check_output, staged_folder
from amodal.runtime.errors import InputError
from amodal.runtime.findings import Completion, Segmentation
from amodal.runtime.frames import frame_names, read_depth, read_frames
from amodal.runtime.manifest import StageName
from amodal.runtime.masks import check_clip, read_masks
from amodal.runtime.memory_buffers import RunShape
from amodal.runtime.model import Model, load
from amodal.runtime.padding import Padding
from amodal.runtime.sampler import Churn, is_guided

from .progress import StageBars, Watcher
from .results import MARKER, describe, write_files


@dataclass(frozen=True)
class RunOptions:
    """The options of `amodal run`, by their names there."""

    bundle: str
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
    device: str | None
    threads: int | None
    memory: Any
    vram: int | None
    engine_dir: Path | None
    verify: bool
    overlay: bool
    overwrite: bool
    as_json: bool
    quiet: bool

    @property
    def seeds(self) -> list[int]:
        """One per sample."""
        return [self.seed + index for index in range(self.samples)]

    @property
    def shape(self) -> RunShape:
        """What of the run decides its memory."""
        stages: dict[str | None, tuple[StageName, ...]] = {
            "segment": ("segment",),
            "complete": ("complete",),
            "both": ("segment", "complete"),
        }
        return RunShape(
            stages.get(self.stage, ()),
            depth=self.depth is None,
            guided=is_guided(self.guidance),
            steps=self.steps,
            samples=self.samples,
            decode_chunk=self.decode_chunk,
            cfg_rows=self.cfg_rows,
        )

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


@dataclass(frozen=True)
class Found:
    """What the stages found; `padding` is the room around the frame, with --pad."""

    seen: Segmentation | None
    whole: Completion | None
    padding: Padding | None

    @property
    def outputs(self) -> dict[str, Segmentation | Completion]:
        """The results of the stages that ran, by their names."""
        named = {"segment": self.seen, "complete": self.whole}
        return {stage: output for stage, output in named.items() if output is not None}

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """Whole-object masks bool [T, H, W] of each seed, as large as the run drew them; none without `segment`."""
        return [sample.masks_full for sample in self.seen.samples] if self.seen else []

    def in_frame(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """What lies in the frame."""
        return pictures if self.padding is None else self.padding.crop(pictures)


def run_job(options: RunOptions) -> dict[str, Any]:
    """Runs the stages and writes OUT; returns the content of result.json."""
    start = time.perf_counter()
    given = (options.bundle, options.frames, options.masks, options.depth, options.amodal)
    inputs = [path for path in given if path is not None]
    check_output(options.out, options.overwrite, MARKER, inputs)
    bars = StageBars(Watcher(options.quiet), options.steps, options.samples)
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
        watch=bars.component,
    ) as model:
        stages = _stages(options, model)
        clip = _read(options, model, stages)
        with staged_folder(options.out, options.overwrite, MARKER, inputs) as folder, bars.show(stages):
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
    for option, given in (("--samples", options.samples > 1), ("--pad", options.pad)):
        if given and "segment" not in wanted:
            raise InputError(f"{option} needs the segment stage, which finds the masks; leave it out, or --stage.")
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


def _run(options: RunOptions, model: Model, clip: Clip, stages: list[str], bars: StageBars) -> Found:
    padding = Padding(clip.frames.shape[1], clip.frames.shape[2]) if options.pad else None
    seen = whole = None
    if "segment" in stages:
        seen = model.segment(
            clip.modal,
            depth=clip.depth,
            rgb=clip.frames if clip.depth is None else None,
            seed=options.seed,
            samples=options.samples,
            padding=padding,
            callback=bars.stage("segment"),
            **options.sampling,
        )
    if "complete" in stages:
        whole = model.complete(
            clip.frames,
            clip.modal,
            seen.masks if seen else clip.amodal,
            seed=seen.noise if seen else options.seed,
            padding=padding,
            callback=bars.stage("complete"),
            **options.sampling,
        )
    return Found(seen, whole, padding)
