"""How time and memory of a clip grow with its steps, samples, frames and resolution."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.errors import AmodalError, InputError
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress, silent

from ..running.clips import Execution, running
from ..running.machine import executed_of
from ..running.memory import Sampler, device_counters, device_peak, host_peak
from ..running.process import in_new_process
from ..running.sources import Checkpoints, checkpoints_of, export_again
from ..schema import Executed, Point, Scaling, Seconds, Sweep, Work

AXES = {"steps": "steps", "samples": "seeds", "frames": "frames", "pixels": "pixels per frame"}
"""Axes and their units. A bundle has a fixed number of frames and pixels: for others it is exported again."""
_SHARES = (0.25, 0.5, 1.0, 1.5)
_SIDES = (0.5, 0.75, 1.0, 1.25)


def measure_scaling(
    bundle: str | Path,
    work: Work,
    execution: Execution,
    *,
    axes: Sequence[str] = tuple(AXES),
    repeats: int = 3,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Scaling:
    """Runs clips with several values along each axis, all else as in `work`; each value in a new process.

    Args:
        axes: of `AXES`.
        repeats: clips of each value, after one that does not count.
        checkpoints: of stages, for `frames` and `pixels`; not needed for those that the manifest names.

    Raises:
        InputError: an unknown axis, `repeats` is less than 1, or no clip could be run.
    """
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        raise InputError(f"axis {', '.join(unknown) or 'none'} is unknown; expected some of {', '.join(AXES)}.")
    if repeats < 1:
        raise InputError(f"{repeats} clips: expected 1 or more.", field="repeats")
    opened, sweeps, executed = Bundle(bundle), [], None
    with tempfile.TemporaryDirectory() as scratch:
        for axis in axes:
            points: list[Point] = []
            skipped: dict[str, str] = {}
            values = _values(axis, opened, work)
            if axis == "samples" and "segment" not in work.stages:
                values, skipped = {}, {"all": "only the segment stage takes several seeds."}
            for value, changes in values.items():
                progress(f"{axis} {value:g}", "", len(points), len(values))
                try:
                    place, clip = _prepared(opened, work, changes, checkpoints, Path(scratch))
                    seconds, peak, executed = in_new_process(_run, str(place), clip, execution, repeats)
                except AmodalError as error:
                    skipped[f"{value:g}"] = str(error)
                    continue
                points.append(Point(value=value, seconds=seconds, peak=peak))
            sweeps.append(sweep_of(axis, points, skipped))
    if executed is None:
        reasons = "; ".join(dict.fromkeys(why for sweep in sweeps for why in sweep.skipped.values()))
        raise InputError(f"no clip could be run ({reasons}).")
    return Scaling(work=work, executed=executed, sweeps=sweeps)


def sweep_of(axis: str, points: Sequence[Point], skipped: Mapping[str, str], unit: str | None = None) -> Sweep:
    """Fits `seconds = fixed + each * value` and `seconds ~ value ** exponent` to the points' medians (least squares).

    Nothing is fitted to fewer than two points.
    """
    fit: dict[str, float] = {}
    if len(points) > 1:
        values = np.array([point.value for point in points])
        medians = np.array([statistics.median(point.seconds) for point in points])
        each, fixed = (float(c) for c in np.polyfit(values, medians, 1))
        fit = {"fixed": fixed, "each": each, "exponent": float(np.polyfit(np.log(values), np.log(medians), 1)[0])}
    return Sweep(axis=axis, unit=unit or AXES[axis], points=list(points), skipped=dict(skipped), **fit)


def _values(axis: str, bundle: Bundle, work: Work) -> dict[float, dict[str, Any]]:
    """The values along an axis, in order, each with the fields of `work` that it changes."""
    if axis == "pixels":
        multiple = bundle.config.multiple
        sizes = {tuple(max(1, round(n * side / multiple)) * multiple for n in work.size) for side in _SIDES}
        return {float(height * width): {"size": (height, width)} for height, width in sorted(sizes)}
    if axis == "samples":
        values = [1, 2, 3]
    else:
        own, least = (work.steps, 1) if axis == "steps" else (work.frames, 2)
        values = sorted({max(least, round(own * share)) for share in _SHARES})
    return {float(value): {axis: value} for value in values}


def _prepared(
    bundle: Bundle, work: Work, changes: Mapping[str, Any], checkpoints: Checkpoints | None, scratch: Path
) -> tuple[Path, Work]:
    """The changed work, and a bundle that runs it: the given one, or one exported into `scratch`."""
    clip = work.model_copy(update=dict(changes))
    if not {"frames", "size"} & set(changes):
        return bundle.path, clip
    clip = clip.model_copy(update={"depth": False})
    if (clip.size, clip.frames) == (bundle.config.size, bundle.config.frames):
        return bundle.path, clip
    out = scratch / f"{clip.frames}x{clip.size[0]}x{clip.size[1]}"
    export_again(bundle, checkpoints_of(bundle, checkpoints), out, clip.size, clip.frames)
    return out, clip


def _run(bundle: str, work: Work, execution: Execution, repeats: int) -> tuple[Seconds, int, Executed]:
    """Seconds of the clips, and the process's peak memory: on the device, or on the host if none is used."""
    with Sampler(device_counters(execution)) as sampler, running(bundle, work, execution) as runner:
        seconds = [runner.clip().times.seconds for _ in range(repeats + 1)][1:]
        executed = executed_of(runner.model)
    used = None if executed.device == "cpu" else device_peak(sampler.bytes)
    return seconds, host_peak() if used is None else used, executed
