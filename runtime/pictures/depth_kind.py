"""What the numbers of a depth map mean, and how they become relative depth, which is what the network was trained on.

    relative   larger is nearer, in any scale: disparity, inverse depth (1 / z), MiDaS, Depth Anything
    inverse    smaller is nearer, without a unit: depth normalised to [0, 1], as Marigold writes it
    metric     distances, in any unit: depth cameras, rendered depth, metric networks

Numbers alone do not say which, and the wrong one hides what is in front behind what is behind. So depth of no stated
kind is relative unless something speaks for another (names, holes, values that stand off from zero); then it is
refused with a sentence that names the argument.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

DepthKind = Literal["relative", "inverse", "metric"]

MOST_RELATIVE = 1000.0
"""Fractions above this are no relative depth that a network is known to write (Depth Anything V1 reached 230)."""
STANDS_OFF = 0.02
"""Disparity goes below this share of its median where anything is far; distances do not, no camera sees so near."""
_EMPTY = 0.001  # share of zeros up to which they may be the far end of normalised depth, rather than holes
_SAMPLED = 1_000_000  # pixels that median and spacing are taken from
_MANY = 16  # distinct values
_HALF = 2**15  # of sixteen bits: normalised depth uses them all, and few cameras see 32 metres in millimetres

_UNITS = frozenset({"m", "mm"})
_WORDS: dict[DepthKind, frozenset[str]] = {
    "metric": frozenset(
        {
            *("metric", "meter", "meters", "metre", "metres", "m", "mm", "millimeter", "millimeters", "millimetre"),
            *("millimetres", "lidar", "zoedepth", "unidepth", "depthpro", "hypersim", "vkitti"),
        }
    ),
    "inverse": frozenset({"marigold", "geowizard"}),
    "relative": frozenset({"disparity", "disp", "relative"}),
}
_OF_CAMERAS = frozenset({"conf", "confidence", "extrinsics", "extrinsic", "intrinsics", "intrinsic"})
"""Arrays that networks of metric depth (Depth Anything 3, VGGT, MoGe) write beside it."""
_EXR_DISTANCE = re.compile(r"(?:^|\.)(?:Z|Depth\.V)$")  # by the specification, and as Blender names it


@dataclass(frozen=True)
class DepthLooks:
    """What is known of depth besides its numbers.

    Attributes:
        source: what messages call it: a path, or the argument's name.
        dtype: of the numbers as they were stored; None for that of the array.
        names: of files and folders.
        arrays: names of the arrays in a file.
    """

    source: str = "depth"
    dtype: np.dtype[Any] | None = None
    names: Sequence[str] = ()
    arrays: Sequence[str] = ()


def orient_depth(
    depth: NDArray[Any], kind: DepthKind | None = None, looks: DepthLooks | None = None
) -> tuple[NDArray[np.float32], list[str]]:
    """Turns depth of any kind into relative depth: larger is nearer, every pixel finite.

    Pixels without a measurement get the depth of the nearest measured pixel of their frame, or of the nearest frame if
    theirs has none: NaN and infinity, and in metric depth also 0, a negative marker such as -1, and the largest
    number of an integer format.

    Args:
        depth: numbers [T, h, w].
        kind: what they mean; None for relative, unless they look like something else.
        looks: what is known besides; None if nothing is.

    Returns:
        float32 [T, h, w], `depth` itself where nothing had to change, and sentences about what was filled.

    Raises:
        InputError: no numbers, an unknown kind, depth that looks like another kind and none was given, or depth
            that cannot be of the kind that was given.
    """
    looks = looks or DepthLooks()
    if depth.dtype.kind not in "fiu" or depth.ndim != 3 or depth.size == 0:
        raise InputError(
            f"{looks.source} holds {depth.dtype} {list(depth.shape)}; expected floats or integers [T, h, w].",
            field="depth",
        )
    check_kind(kind)
    dtype = looks.dtype or depth.dtype
    if kind is None:
        _refuse_what_looks_otherwise(depth, dtype, looks)
        kind = "relative"
    values = depth.astype(np.float32, copy=False)
    missing = ~np.isfinite(values)
    if kind == "metric":
        missing |= _without_distance(values, dtype, looks)
    values, notes = _filled(values, missing, looks)
    if kind == "inverse":
        values = values.max() - values
    elif kind == "metric":
        values = np.float32(1) / values
    return values, notes


def orient_map(
    depth: NDArray[np.float32], kind: DepthKind | None, looks: DepthLooks, top: float
) -> NDArray[np.float32] | None:
    """Turns one map [h, w] of a clip that `orient_depth` judged by other maps into relative depth.

    Args:
        kind: as for `orient_depth`; None for depth that was found to be relative.
        looks: with the dtype of the stored numbers.
        top: the largest number of the clip, for inverse depth.

    Returns:
        float32 [h, w], None if no pixel holds a measurement.

    Raises:
        InputError: numbers that cannot be of the kind.
    """
    missing = ~np.isfinite(depth)
    if kind is None and missing.any():
        raise _refusal(looks.source, f"{_percent(float(missing.mean()))} of a map are NaN or infinite", "metric")
    if kind == "metric":
        missing |= _without_distance(depth, looks.dtype or depth.dtype, looks)
    if missing.all():
        return None
    values = depth.copy()
    _fill_from_nearest(values, missing)
    if kind == "inverse":
        return np.float32(top) - values
    return np.float32(1) / values if kind == "metric" else values


def check_kind(kind: DepthKind | None) -> None:
    """Raises `InputError` unless `kind` is None or one of the three."""
    if kind is not None and kind not in get_args(DepthKind):
        raise InputError(
            f"depth_kind {kind!r} is unknown; expected relative, inverse or metric.",
            field="depth_kind",
        )


def judge_limits(low: float, high: float, dtype: np.dtype[Any]) -> None:
    """Refuses depth of no stated kind by its smallest and largest value: all that is known of an array on a device.

    Args:
        low, high: NaN if any value is.

    Raises:
        InputError: it is not finite, or looks metric.
    """
    if not np.isfinite([low, high]).all():
        raise _refusal("depth", "it holds NaN or infinity", "metric")
    if dtype.kind == "f" and high > MOST_RELATIVE:
        raise _refusal("depth", f"it has values up to {high:.6g}", "metric")
    normalised = high <= 1 or (dtype.kind != "f" and high >= _HALF) or dtype.itemsize == 1
    if not normalised and STANDS_OFF * high < low < high:
        raise _refusal("depth", f"its values from {low:.4g} to {high:.4g} keep away from 0", "metric")


def _refuse_what_looks_otherwise(depth: NDArray[Any], dtype: np.dtype[Any], looks: DepthLooks) -> None:
    said = _said_by_names(looks)
    if said is not None and said[0] != "relative":
        raise _refusal(looks.source, said[1], said[0])
    if dtype.kind == "f" and not np.isfinite(depth).all():
        share = 1 - float(np.isfinite(depth).mean())
        raise _refusal(looks.source, f"{_percent(share)} of its pixels are NaN or infinite", "metric")
    if said is None and dtype.itemsize > 1:  # eight bits are too few for distances
        reason = _reason_for_metric(depth, dtype)
        if reason:
            raise _refusal(looks.source, reason, "metric")


def _said_by_names(looks: DepthLooks) -> tuple[DepthKind, str] | None:
    """Returns the kind that a name speaks for, and a clause that says which."""
    for name in looks.arrays:
        if name.lower() in _OF_CAMERAS or _EXR_DISTANCE.search(name):
            return "metric", f"it holds an array named {name!r}"
    for name in (*looks.arrays, *looks.names):
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        words = set(re.split(r"[^a-z]+", spaced)) - _UNITS  # `m1` is no length, `depth_m` is
        words |= _UNITS & set(re.split(r"[^a-z0-9]+", spaced))
        for kind, marks in _WORDS.items():
            if words & marks:
                return kind, f"its name is {name!r}" if name in looks.names else f"it holds an array named {name!r}"
    return None


def _reason_for_metric(depth: NDArray[Any], dtype: np.dtype[Any]) -> str | None:
    """Returns what about finite values of more than eight bits speaks for distances, if anything does."""
    low, high = float(depth.min()), float(depth.max())
    positive = depth > 0
    if high <= 0 or (low < 0 and (-low <= high <= 1 or not ((depth == low) | (depth >= 0)).all())):
        return None  # prepared, or otherwise negative: distances are not, but for one number that marks holes
    sampled = depth.reshape(-1)[:: max(1, depth.size // _SAMPLED)]
    distinct = np.unique(sampled[sampled > 0])
    whole = high > 1 and bool((distinct == np.rint(distinct)).all())
    if not whole and high > MOST_RELATIVE:
        return f"it has values up to {high:.6g}"
    if whole and high <= 255 and len(distinct) >= _MANY:
        return None  # eight bits, stored in more
    nearest = float(np.min(depth, where=positive, initial=high))
    if nearest == high or nearest < STANDS_OFF * float(np.median(sampled[sampled > 0])):
        return None
    if len(distinct) >= _MANY:
        steps = np.diff(distinct[:_MANY])
        if nearest <= 5 * steps.mean():
            return None  # the first step of a ramp that begins at zero
    elif high <= 1 or not positive.all():
        return None  # a few layers, in front of nothing
    empty = 1 - float(positive.mean())
    if 0 < empty <= _EMPTY and high in (1.0, 255.0, 65535.0):
        return None  # the far end of depth that was normalised
    span = f"from {nearest:.4g} to {high:.6g}"
    if empty > 0:
        return f"{_percent(empty)} of its pixels are {min(low, 0):.4g} and the others go {span}"
    normalised = high <= 1 or (whole and high >= _HALF)
    return None if normalised else f"its values {span} keep away from 0"


def _without_distance(values: NDArray[np.float32], dtype: np.dtype[Any], looks: DepthLooks) -> NDArray[np.bool_]:
    """Marks pixels that hold no distance; raises `InputError` if negative values are more than a marker."""
    negative = values[np.isfinite(values) & (values < 0)]
    if negative.size and negative.min() != negative.max():
        raise InputError(
            f"{looks.source} holds values from {negative.min():.4g}; metric depth is never negative: give distances, "
            'or say `depth_kind="relative"` if larger is nearer.',
            field="depth_kind",
        )
    missing: NDArray[np.bool_] = values < np.finfo(np.float32).tiny  # of which the inverse would be infinite
    if dtype.kind in "iu":
        missing |= values >= np.iinfo(dtype).max
    return missing


def _filled(
    values: NDArray[np.float32], missing: NDArray[np.bool_], looks: DepthLooks
) -> tuple[NDArray[np.float32], list[str]]:
    """Fills pixels without a measurement, and says how many there were."""
    count = int(missing.sum())
    if count == 0:
        return values, []
    measured = [t for t in range(len(values)) if not missing[t].all()]
    if not measured:
        raise InputError(f"{looks.source} holds no depth at all: every pixel is 0, NaN or infinite.", field="depth")
    values = values.copy()
    for t in measured:
        _fill_from_nearest(values[t], missing[t])
    whole = [t for t in range(len(values)) if t not in measured]
    for t in whole:
        values[t] = values[min(measured, key=lambda other: abs(other - t))]
    notes = [
        f"{count:,} depth pixels without a measurement ({_percent(count / missing.size)}) were filled with the nearest "
        "measured depth."
    ]
    if whole:
        notes.append(
            f"{len(whole)} frames hold no depth at all, the first is frame {whole[0]}; the nearest frame's is used."
        )
    return values, notes


def _fill_from_nearest(frame: NDArray[np.float32], missing: NDArray[np.bool_]) -> None:
    if not missing.any():
        return
    _, labels = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    found = np.zeros(int(labels.max()) + 1, np.float32)
    found[labels[~missing]] = frame[~missing]
    frame[missing] = found[labels[missing]]


def _refusal(source: str, reason: str, kind: DepthKind) -> InputError:
    is_called = "distances (smaller is nearer)" if kind == "metric" else "depth of which smaller is nearer"
    others = '`depth_kind="inverse"` if smaller is nearer without a unit, or ' * (kind == "metric")
    return InputError(
        f'{source} looks like {is_called}, because {reason}; say `depth_kind="{kind}"` if it is, {others}'
        '`depth_kind="relative"` if larger is nearer.',
        field="depth_kind",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "less than 0.1 %"
