"""How time and memory of a clip grow with its steps, its samples, its frames and its resolution."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
"""What can grow, and its unit. A bundle's frames and size are fixed: for others it is exported again."""
_SHARES = (0.25, 0.5, 1.0, 1.5)
_SIDES = (0.5, 0.75, 1.0, 1.25)


class _Place(NamedTuple):
    """A point to be: its value, the bundle and the clip."""

    value: float
    bundle: Path
    work: Work


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
    """Runs clips of several values along each axis, all else as in `work`; each value in a process of its own.

    Args:
        axes: of `AXES`.
        repeats: clips of each value, after one that does not count.
        checkpoints: of stages, for `frames` and `pixels`; those that the manifest names are found without.

    Raises:
        InputError: an unknown axis, or fewer than one clip.
        AmodalError: the bundle cannot be run like this at all.
    """
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        raise InputError(f"axis {', '.join(unknown) or 'none'} is unknown; expected some of {', '.join(AXES)}.")
    if repeats < 1:
        raise InputError(f"{repeats} clips: expected 1 or more.", field="repeats")
    sweeps, executed = [], None
    with tempfile.TemporaryDirectory() as scratch:
        for axis in axes:
            places = _Places(Bundle(bundle), work, Path(scratch), checkpoints)
            points: list[Point] = []
            skipped: dict[str, str] = {}
            for place, why in places.along(axis):
                if place is None:
                    skipped.update(why)
                    continue
                progress(f"{axis} {place.value:g}", "", len(points), len(places.values(axis)))
                try:
                    seconds, peak, executed = in_new_process(_run, str(place.bundle), place.work, execution, repeats)
                except AmodalError as error:
                    skipped[f"{place.value:g}"] = str(error)
                    continue
                points.append(Point(value=place.value, seconds=seconds, peak=peak))
            sweeps.append(sweep_of(axis, points, skipped))
    if executed is None:
        reasons = "; ".join(dict.fromkeys(why for sweep in sweeps for why in sweep.skipped.values()))
        raise InputError(f"no clip could be run ({reasons}).")
    return Scaling(work=work, executed=executed, sweeps=sweeps)


def sweep_of(axis: str, points: Sequence[Point], skipped: Mapping[str, str]) -> Sweep:
    """Fits `seconds = fixed + each * value` and `seconds ~ value ** exponent` to the points' medians (least squares).

    Fewer than two points fit nothing: zeros.
    """
    fixed = each = exponent = 0.0
    if len(points) > 1:
        values = np.array([point.value for point in points])
        medians = np.array([statistics.median(point.seconds) for point in points])
        each, fixed = (float(c) for c in np.polyfit(values, medians, 1))
        exponent = float(np.polyfit(np.log(values), np.log(medians), 1)[0])
    return Sweep(
        axis=axis,
        unit=AXES[axis],
        points=list(points),
        fixed=fixed,
        each=each,
        exponent=exponent,
        skipped=dict(skipped),
    )


class _Places:
    def __init__(self, bundle: Bundle, work: Work, scratch: Path, checkpoints: Checkpoints | None) -> None:
        self._bundle, self._work, self._scratch, self._given = bundle, work, scratch, checkpoints

    def values(self, axis: str) -> list[float]:
        """Along an axis, the bundle's own among them."""
        work, multiple = self._work, self._bundle.config.multiple
        if axis == "steps":
            return sorted({max(1, round(work.steps * share)) for share in _SHARES})
        if axis == "samples":
            return [1, 2, 3]
        if axis == "frames":
            return sorted({max(2, round(work.frames * share)) for share in _SHARES})
        sides = {tuple(max(1, round(n * side / multiple)) * multiple for n in work.size) for side in _SIDES}
        self._sizes = {float(height * width): (height, width) for height, width in sides}
        return sorted(self._sizes)

    def along(self, axis: str) -> Iterator[tuple[_Place | None, dict[str, str]]]:
        """The points of an axis; None with a reason for those that cannot be had."""
        if axis == "samples" and "segment" not in self._work.stages:
            yield None, {"all": "only the segment stage takes several seeds."}
            return
        for value in self.values(axis):
            if axis in ("steps", "samples"):
                yield _Place(value, self._bundle.path, self._work.model_copy(update={axis: int(value)})), {}
            else:
                try:
                    yield self._exported(axis, value), {}
                except AmodalError as error:
                    yield None, {f"{value:g}": str(error)}

    def _exported(self, axis: str, value: float) -> _Place:
        config, work = self._bundle.config, self._work.model_copy(update={"depth": False})
        size, frames = work.size, work.frames
        if axis == "frames":
            frames = int(value)
        else:
            size = self._sizes[value]
        if (size, frames) == (config.size, config.frames):
            return _Place(value, self._bundle.path, work)
        out = self._scratch / f"{frames}x{size[0]}x{size[1]}"
        export_again(self._bundle, checkpoints_of(self._bundle, self._given), out, size=size, frames=frames)
        return _Place(value, out, work.model_copy(update={"size": size, "frames": frames}))


def _run(bundle: str, work: Work, execution: Execution, repeats: int) -> tuple[Seconds, int, Executed]:
    """Seconds of clips, and the most memory that the process had: on the device, or on the host where none is used."""
    with Sampler(device_counters(execution)) as sampler, running(bundle, work, execution) as runner:
        seconds = [runner.clip().seconds for _ in range(repeats + 1)][1:]
        executed = executed_of(runner.model)
    used = None if executed.device == "cpu" else device_peak(sampler.bytes)
    return seconds, host_peak([0]) if used is None else used, executed
