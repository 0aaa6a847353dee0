"""What a stage is given, made of what the caller has: both conditions, on the backend's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array, as_input, namespace_of
from ...backends import Backend
from ...errors import InputError
from ...pictures.images import (
    Checks,
    prepare_amodal,
    prepare_depth,
    prepare_modal,
    prepare_rgb,
    to_bytes,
    to_signed,
    visible_rgb,
)
from ...pictures.propagation import Propagated
from .config import Config
from .stage import Conditions

if TYPE_CHECKING:
    from ...pictures.padding import Padding


Ready = Callable[[int, tuple[int, int]], None]  # frames of the clip, and full size
Carry = Callable[[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]], Propagated]


@dataclass(frozen=True)
class Inputs:
    """What one call runs on.

    Attributes:
        conditions: for the stage, all of the bundle's frames.
        count: frames of the clip, T.
        full_size: (h, w) of what the caller handed over; of the padded frame, with padding.
        visible: bool [T, H, W], the object's visible pixels at the bundle's size.
        raw: what the caller's masks are, bool [T, h, w]; only with padding.
        shown: what the clip shows of the object, on the host; only with propagation.
    """

    conditions: Conditions
    count: int
    full_size: tuple[int, int]
    visible: Array
    raw: Array = None
    shown: Propagated | None = None


def segment_inputs(
    config: Config,
    backend: Backend,
    modal: Any,
    depth: Any,
    rgb: Any,
    padding: Padding | None,
    find_depth: Callable[[Array], Array],
    ready: Ready,
) -> Inputs:
    """For `Model.segment`, which has the arguments.

    Args:
        find_depth: prepared frames [T, 3, H, W] to prepared depth [T, H, W].
        ready: called when all that was handed over has been looked at, before a network runs.

    Raises:
        InputError: shapes, dtypes, ranges or devices that do not fit, or no depth and no way to compute it.
    """
    xp, size, checks = backend.xp, config.size, Checks(backend.xp)
    raw = as_input(modal, "modal", xp)
    full_size = (int(raw.shape[-2]), int(raw.shape[-1])) if raw.ndim > 1 else (0, 0)
    if padding is None:
        prepared, raw = prepare_modal(raw, size, xp, checks), None
    else:
        full_size = padding.size
        raw = xp.asarray(padding.raw(raw, xp))
        prepared = padding.prepare_modal(raw, size, xp)
    count = _limited(config, "modal", len(prepared))
    if depth is None and rgb is None:
        raise InputError("segment needs depth, or rgb to compute it from; neither was given.")
    if depth is None:
        pictures = prepare_rgb(rgb, size, xp, checks)
        _same_count("modal", count, "rgb", len(pictures))  # before the network runs
        checks.raise_pending(backend.to_host)
        ready(count, full_size)
        maps = find_depth(pictures)
        del pictures
        if padding is not None:
            maps = padding.prepare_depth(maps, size, xp, checks)
    else:
        prepare = prepare_depth if padding is None else padding.prepare_depth
        maps = prepare(depth, size, xp, checks)
        _same_count("modal", count, "depth", len(maps))
    checks.raise_pending(backend.to_host)
    if depth is not None:
        ready(count, full_size)
    three = [xp.repeat(padded(x, config.frames, xp)[:, None], 3, axis=1) for x in (prepared, maps)]
    return Inputs(Conditions(*three), count, full_size, prepared > 0, raw)


def complete_inputs(
    config: Config,
    backend: Backend,
    rgb: Any,
    modal: Any,
    amodal: Any,
    padding: Padding | None,
    carry: Carry | None,
    ready: Ready,
) -> Inputs:
    """For `Model.complete`, which has the arguments; `ready` as above.

    Args:
        carry: what propagates; the network sees what is carried over as visible, and draws the rest.

    Raises:
        InputError: shapes, dtypes, ranges or devices that do not fit.
    """
    xp, size, checks = backend.xp, config.size, Checks(backend.xp)
    raw = as_input(rgb, "rgb", xp)
    if padding is None:
        prepared = prepare_modal(modal, size, xp, checks)
    else:  # the edge goes on, so that resizing does not mix another colour into it
        raw, prepared = padding.pad(raw, xp=namespace_of(raw, xp)), padding.prepare_modal(modal, size, xp)
    pictures, whole = prepare_rgb(raw, size, xp, checks), prepare_amodal(amodal, size, xp)
    rows, columns = raw.shape[1:3] if raw.dtype == np.uint8 else raw.shape[-2:]
    count = _limited(config, "rgb", len(pictures))
    for name, other in (("modal", prepared), ("amodal", whole)):
        _same_count("rgb", count, name, len(other))
    checks.raise_pending(backend.to_host)
    ready(count, (int(rows), int(columns)))
    shown = None
    if carry is not None:
        there, modal = backend.to_host(pictures), backend.to_host(prepared) > 0
        del pictures, prepared  # of which there would be two on the device
        shown = carry(to_bytes(there), modal, backend.to_host(whole))
        pictures, prepared = (xp.asarray(array) for array in _carried(there, modal, shown))
    pictures, seen, whole = (padded(x, config.frames, xp) for x in (pictures, prepared, whole))
    signed = xp.where(whole, np.float32(1.0), np.float32(-1.0))
    conditions = Conditions(visible_rgb(pictures, seen, xp), xp.repeat(signed[:, None], 3, axis=1))
    return Inputs(conditions, count, (int(rows), int(columns)), prepared > 0, shown=shown)


def _carried(
    pictures: NDArray[np.float32], modal: NDArray[np.bool_], shown: Propagated
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pictures and masks, prepared, in which all is visible that the clip shows."""
    filled = np.where((shown.known & ~modal)[:, None], to_signed(shown.rgb).transpose(0, 3, 1, 2), pictures)
    return filled, np.where(shown.known, np.float32(1), np.float32(-1))


def padded(array: NDArray[Any], frames: int, xp: Any) -> Array:
    """A clip made as long as the bundle's by repeating its last frame."""
    missing = frames - len(array)
    return xp.concatenate([array, xp.repeat(array[-1:], missing, axis=0)]) if missing else array


def _limited(config: Config, name: str, count: int) -> int:
    limit = config.frames
    if count > limit:
        raise InputError(
            f"{name} has {count} frames, this bundle takes at most {limit}; pass {limit} at a time, or export "
            f"it again with `amodal export --frames {count}`."
        )
    return count


def _same_count(name: str, count: int, other: str, found: int) -> None:
    if count != found:
        raise InputError(f"{name} has {count} frames and {other} has {found}; expected the same number.")
