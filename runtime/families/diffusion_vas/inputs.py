"""Prepares the caller's arrays as the two conditions of a stage, on the backend's device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array, as_input, namespace_of
from ...backends import Backend
from ...errors import InputError
from ...pictures import images
from ...pictures.depth_kind import DepthKind, check_kind, judge_limits, orient_depth
from ...pictures.images import Checks, Size
from ...pictures.padding import Padding
from ...pictures.propagation import Propagated
from .config import Config
from .stage import Conditions

Ready = Callable[[int, Size], None]
"""Called with the clip's number of frames and its full size when all arrays are checked, before a network runs."""

Propagate = Callable[[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]], Propagated]


@dataclass(frozen=True)
class Inputs:
    """Prepared inputs of one call."""

    conditions: Conditions  # as long as the bundle's clips
    count: int  # T, frames of the caller's clip
    full_size: Size  # (h, w) of the caller's arrays; with padding, of the padded frame
    visible: Array  # bool [T, H, W], the object's visible pixels at the bundle's size
    raw: Array = None  # the caller's masks, bool [T, h, w]; only with padding
    propagated: Propagated | None = None  # on the host; only with propagation


class GivenDepth(NamedTuple):
    """Depth as the caller gave it, None for none, and what its numbers mean."""

    values: Any = None
    kind: DepthKind | None = None


def segment_inputs(
    config: Config,
    backend: Backend,
    modal: Any,
    depth: GivenDepth,
    rgb: Any,
    padding: Padding | None,
    find_depth: Callable[[Array], Array],
    ready: Ready,
) -> Inputs:
    """Prepares the inputs of `Model.segment`, which documents the arrays and the errors.

    Args:
        find_depth: computes prepared depth [T, H, W] from prepared frames [T, 3, H, W].
    """
    xp, size, checks = backend.xp, config.size, Checks(backend.xp)
    raw = as_input(modal, "modal", xp)
    full_size = (int(raw.shape[-2]), int(raw.shape[-1])) if raw.ndim > 1 else (0, 0)
    mask_size = full_size
    if padding is None:
        prepared = images.prepare_modal(raw, size, xp, checks)
    else:
        full_size = padding.size
        raw = xp.asarray(padding.raw(raw, xp, checks))
        prepared = padding.prepare_modal(raw, size, xp)
    _require_left(raw, prepared, xp)
    count = _frame_count(config, modal=prepared)
    prepare_depth = images.prepare_depth if padding is None else padding.prepare_depth
    if depth.values is not None:
        given = as_input(depth.values, "depth", xp)
        maps = prepare_depth(_relative(given, depth.kind, backend, checks), size, xp, checks)
        _frame_count(config, modal=prepared, depth=maps)
    elif rgb is not None:
        frames = as_input(rgb, "rgb", xp)
        _require_one_ratio(size, {"modal": mask_size, "rgb": _frame_size(frames)})
        pictures = images.prepare_rgb(frames, size, xp, checks)
        _frame_count(config, modal=prepared, rgb=pictures)
    else:
        raise InputError("segment needs depth, or rgb to compute it from; neither was given.")
    if depth.values is None and depth.kind is not None:
        raise InputError("`depth_kind` says what `depth` is, and there is none; give it, or omit `depth_kind`.")
    checks.raise_pending(backend.to_host)
    ready(count, full_size)
    if depth.values is None:
        maps = find_depth(pictures)
        del pictures
        if padding is not None:
            maps = prepare_depth(maps, size, xp, checks)
            checks.raise_pending(backend.to_host)
    three = [xp.repeat(padded(x, config.frames, xp)[:, None], 3, axis=1) for x in (prepared, maps)]
    return Inputs(Conditions(*three), count, full_size, prepared > 0, raw if padding else None)


def _relative(depth: Array, kind: DepthKind | None, backend: Backend, checks: Checks) -> Array:
    """Turns depth of any kind into relative depth; warns of pixels that were filled.

    Depth on a device is left there and judged by its limits, but for that of another kind: its holes are filled on the
    host.
    """
    check_kind(kind)
    if depth.ndim != 3 or depth.dtype.kind not in "fiu" or 0 in depth.shape:
        return depth  # refused by the preparation
    if namespace_of(depth, backend.xp) is not np:
        if kind is None and depth.dtype.itemsize > 1:
            checks.add(depth, partial(judge_limits, dtype=depth.dtype))
        if kind in (None, "relative"):
            return depth
        depth = backend.to_host(depth)
    relative, notes = orient_depth(depth, kind)
    for note in notes:
        warnings.warn(note, stacklevel=5)  # at the call of `Model.segment`
    return relative if notes or kind in ("inverse", "metric") else depth  # fewer bytes to upload


def complete_inputs(
    config: Config,
    backend: Backend,
    rgb: Any,
    modal: Any,
    amodal: Any,
    padding: Padding | None,
    propagate: Propagate | None,
    ready: Ready,
) -> Inputs:
    """Prepares the inputs of `Model.complete`, which documents the arrays and the errors.

    Args:
        propagate: copies hidden pixels from other frames; the network sees them as visible. None to leave it out.
    """
    xp, size, checks = backend.xp, config.size, Checks(backend.xp)
    raw, modal, amodal = as_input(rgb, "rgb", xp), as_input(modal, "modal", xp), as_input(amodal, "amodal", xp)
    if padding is None:
        sizes = {"modal": tuple(modal.shape[-2:]), "amodal": tuple(amodal.shape[-2:])}
        _require_one_ratio(size, {"rgb": _frame_size(raw), **sizes})
        prepared = images.prepare_modal(modal, size, xp, checks)
    else:  # the edge is repeated, so that resizing mixes no other colour into it
        raw, prepared = padding.pad(raw, xp=namespace_of(raw, xp)), padding.prepare_modal(modal, size, xp, checks)
    pictures, whole = images.prepare_rgb(raw, size, xp, checks), images.prepare_amodal(amodal, size, xp, checks)
    height, width = _frame_size(raw)
    full_size = (height, width)
    count = _frame_count(config, rgb=pictures, modal=prepared, amodal=whole)
    checks.raise_pending(backend.to_host)
    ready(count, full_size)
    propagated = None
    if propagate is not None:
        frames, seen = backend.to_host(pictures), backend.to_host(prepared) > 0
        del pictures, prepared  # otherwise both would be on the device twice
        propagated = propagate(images.to_bytes(frames), seen, backend.to_host(whole))
        copied = images.to_signed(propagated.rgb).transpose(0, 3, 1, 2)
        pictures = xp.asarray(np.where((propagated.known & ~seen)[:, None], copied, frames))
        prepared = xp.asarray(np.where(propagated.known, np.float32(1), np.float32(-1)))
    pictures, masks, whole = (padded(x, config.frames, xp) for x in (pictures, prepared, whole))
    signed = xp.where(whole, np.float32(1.0), np.float32(-1.0))
    conditions = Conditions(images.visible_rgb(pictures, masks, xp), xp.repeat(signed[:, None], 3, axis=1))
    return Inputs(conditions, count, full_size, prepared > 0, propagated=propagated)


def padded(array: NDArray[Any], frames: int, xp: Any) -> Array:
    """Repeats the last frame until the clip has `frames` frames."""
    missing = frames - len(array)
    return xp.concatenate([array, xp.repeat(array[-1:], missing, axis=0)]) if missing else array


def _require_left(modal: Array, prepared: Array, xp: Any) -> None:
    """Raises `InputError` if raw masks show an object of which nothing is left at the bundle's size.

    On a device this is not asked, because the answer would have to be waited for.
    """
    if xp is not np or modal.dtype.kind not in "biu" or (prepared > 0).any():
        return
    if modal.any():
        raise InputError(
            f"modal shows an object of which nothing is left when {modal.shape[1]}x{modal.shape[2]} is resized to the "
            f"bundle's {prepared.shape[1]}x{prepared.shape[2]}; cut a window around it with "
            "`amodal.runtime.pictures.cropping.Crop`.",
            field="modal",
        )


def _frame_size(rgb: Array) -> tuple[int, ...]:
    """Returns (h, w) of raw frames [T, h, w, 3] or prepared ones [T, 3, H, W]; fewer numbers for other shapes."""
    return tuple(int(n) for n in (rgb.shape[1:3] if rgb.dtype == np.uint8 else rgb.shape[-2:]))


def _require_one_ratio(size: Size, sizes: dict[str, tuple[int, ...]]) -> None:
    """Raises `InputError` for the first of the arrays whose ratio differs from that of the first.

    Any of them may have the bundle's size, because it is then resized already. A side may be rounded to whole pixels.
    """
    given = [(name, one) for name, one in sizes.items() if len(one) == 2 and one != tuple(size) and 0 not in one]
    for name, (height, width) in given[1:]:
        first, (rows, columns) = given[0]
        off = min(abs(rows * width / columns / height - 1), abs(columns * height / rows / width - 1))
        if off > 1 / min(rows, columns, height, width):
            raise InputError(
                f"{first} is {rows}x{columns} and {name} is {height}x{width} (height x width), pictures of different "
                "shapes; expected the same size, or one that is resized as a whole."
            )


def _frame_count(config: Config, **clips: Array) -> int:
    """Returns the number of frames of all clips; raises `InputError` if they differ or the bundle takes fewer."""
    (name, count), *others = ((name, len(clip)) for name, clip in clips.items())
    limit = config.frames
    if count > limit:
        raise InputError(
            f"{name} has {count} frames, this bundle takes at most {limit}; pass {limit} at a time, or export "
            f"it again with `amodal export --frames {count}`."
        )
    for other, found in others:
        if found != count:
            raise InputError(f"{name} has {count} frames and {other} has {found}; expected the same number.")
    return count
