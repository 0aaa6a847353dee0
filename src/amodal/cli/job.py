"""What `amodal run` does: read, run, write."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from amodal import __version__
from amodal.runtime.atomic import check_output, staged_folder
from amodal.runtime.bundle import sha256_of
from amodal.runtime.errors import InputError
from amodal.runtime.frames import frame_names, read_depth, read_frames
from amodal.runtime.manifest import MANIFEST_NAME
from amodal.runtime.masks import check_clip, read_masks
from amodal.runtime.model import Completion, Model, Segmentation, load
from amodal.runtime.overlay import write_contact_sheet, write_overlay
from amodal.runtime.results import write_frames_png, write_json, write_masks_json, write_masks_png
from amodal.runtime.sampler import Churn

_MARKER = "result.json"


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
class _Clip:
    frames: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    amodal: NDArray[np.bool_] | None
    names: list[str] | None


def run_job(options: RunOptions, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Runs the stages and writes OUT.

    Returns:
        The content of result.json, and warnings to show.
    """
    start = time.perf_counter()
    inputs = [p for p in (options.bundle, options.frames, options.masks, options.depth, options.amodal) if p]
    check_output(options.out, options.overwrite, _MARKER, inputs)
    with load(
        options.bundle,
        options.backend,
        memory=options.memory,
        device=options.device,
        threads=options.threads,
        verify=options.verify,
    ) as model:
        stages = _stages(options, model)
        clip, warnings = _read(options, model, stages)
        with staged_folder(options.out, options.overwrite, _MARKER, inputs) as folder:
            seen, whole = _run(options, model, clip, stages, console)
            result = _write(folder, options, model, clip, seen, whole, warnings, start)
    return result, warnings


def _stages(options: RunOptions, model: Model) -> list[str]:
    stages = list(model.manifest.stages)
    wanted = [options.stage] if options.stage in ("segment", "complete") else ["segment", "complete"]
    if options.stage is None:
        wanted = [s for s in wanted if s in stages] if "segment" in stages else ["complete"]
    for stage in wanted:
        if stage not in stages:
            raise InputError(
                f"bundle {options.bundle} has no {stage} stage; export it again with --{stage} CHECKPOINT, or choose "
                f"--stage {stages[0]}."
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


def _read(options: RunOptions, model: Model, stages: list[str]) -> tuple[_Clip, list[str]]:
    frames = read_frames(options.frames, limit=model.manifest.frames)
    size = (frames.shape[1], frames.shape[2])
    modal = read_masks(options.masks, options.object_id, size)
    depth = read_depth(options.depth) if options.depth and "segment" in stages else None
    warnings = check_clip(frames, modal, depth)
    amodal = None
    if options.amodal and stages == ["complete"]:
        amodal = read_masks(options.amodal, options.object_id, size, key="amodal")
        check_clip(frames, amodal)
    return _Clip(frames, modal, depth, amodal, frame_names(options.frames)), warnings


def _run(
    options: RunOptions, model: Model, clip: _Clip, stages: list[str], console: Console
) -> tuple[Segmentation | None, Completion | None]:
    seen = whole = None
    with _steps(console, options, stages) as callbacks:
        if "segment" in stages:
            seen = model.segment(
                clip.modal,
                depth=clip.depth,
                rgb=clip.frames if clip.depth is None else None,
                seed=options.seed,
                callback=callbacks["segment"],
                **options.sampling,
            )
        if "complete" in stages:
            amodal = seen.masks if seen else clip.amodal
            whole = model.complete(
                clip.frames,
                clip.modal,
                amodal,
                seed=seen.noise if seen else options.seed,
                callback=callbacks["complete"],
                **options.sampling,
            )
    return seen, whole


@contextmanager
def _steps(console: Console, options: RunOptions, stages: list[str]) -> Iterator[dict[str, Callable[..., None]]]:
    """A progress bar per stage; nothing where nobody watches."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]:<12}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    hidden = options.quiet or options.as_json or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as progress:
        tasks = {s: progress.add_task(s, total=options.steps, phase="waiting", start=False) for s in stages}
        first = tasks[stages[0]]
        progress.start_task(first)
        progress.update(first, phase="encoding")

        def advance(stage: str) -> Callable[..., None]:
            def step(index: int, sigma: float, latents: Any) -> None:
                task = tasks[stage]
                if index == 0:
                    progress.start_task(task)
                phase = "decoding" if index == options.steps - 1 else f"sigma {sigma:.3g}"
                progress.update(task, completed=index + 1, phase=phase)

            return step

        yield {stage: advance(stage) for stage in stages}
        for task in tasks.values():
            progress.update(task, phase="done")


def _write(
    folder: Path,
    options: RunOptions,
    model: Model,
    clip: _Clip,
    seen: Segmentation | None,
    whole: Completion | None,
    warnings: list[str],
    start: float,
) -> dict[str, Any]:
    amodal = seen.masks_full if seen else clip.amodal
    assert amodal is not None
    files = []
    if seen:
        write_masks_png(folder / "amodal_masks", amodal, clip.names)
        files.append("amodal_masks/")
    if whole:
        write_frames_png(folder / "completed", whole.frames_full, clip.names)
        files.append("completed/")
    write_masks_json(folder / "masks.json", clip.modal, amodal, clip.names)
    files.append("masks.json")
    if options.overlay:
        completed = whole.frames_full if whole else None
        write_overlay(folder / "overlay.gif", clip.frames, clip.modal, amodal, completed, fps=options.fps)
        write_contact_sheet(folder / "sheet.png", clip.frames, clip.modal, amodal, completed)
        files += ["overlay.gif", "sheet.png"]
    seconds = {
        stage: {"total": output.seconds, **output.timings}
        for stage, output in (("segment", seen), ("complete", whole))
        if output is not None
    }
    result = {
        "schema_version": 1,
        "amodal_version": __version__,
        "files": [*files, _MARKER],
        "inputs": {
            "frames": options.frames,
            "masks": options.masks,
            "depth": options.depth,
            "amodal": options.amodal,
            "object": options.object_id,
            "count": len(clip.frames),
            "height": clip.frames.shape[1],
            "width": clip.frames.shape[2],
        },
        "settings": _settings(options),
        "seconds": {"total": time.perf_counter() - start, **seconds},
        "hidden_share": [_hidden(a, m) for a, m in zip(amodal, clip.modal, strict=True)],
        "bundle": _bundle(options.bundle, model),
        "backend": model.backend.describe(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
        "warnings": warnings,
    }
    write_json(folder / _MARKER, result)
    return result


def _settings(options: RunOptions) -> dict[str, Any]:
    churn = asdict(options.sampling["churn"])
    churn["s_tmax"] = None if math.isinf(churn["s_tmax"]) else churn["s_tmax"]
    return {
        "seed": options.seed,
        **{k: v for k, v in options.sampling.items() if k != "churn"},
        "churn": churn,
        "memory": options.memory,
    }


def _bundle(path: Path, model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "path": str(path),
        "manifest_sha256": sha256_of(path / MANIFEST_NAME),
        "precision": sorted({c.precision for c in manifest.components.values()}),
        "size": list(manifest.size),
        "frames": manifest.frames,
        "context_layout": manifest.context_layout,
        "files": {f.path: f.sha256 for c in manifest.components.values() for f in c.files},
    }


def _hidden(amodal: NDArray[np.bool_], modal: NDArray[np.bool_]) -> float:
    """Share of the whole object that is not visible."""
    whole = int((amodal | modal).sum())
    return float((amodal & ~modal).sum() / whole) if whole else 0.0
