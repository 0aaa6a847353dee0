"""Reads a clip: frames, the masks of one object and, where there are any, depth and whole-object masks.

Names and counts are settled first, so that nothing is decoded for a clip that does not fit together. What was
understood in a way that the user may not expect is in the clip's `warnings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.depth_kind import DepthKind
from ..pictures.objects import MaskKind, ObjectId
from .depth import DepthSource, open_depth
from .frames import Frames, open_frames
from .masks import Masks, check_seen, fit_masks, near_ratio, open_masks
from .pairing import Missing, Pair, Pairer, Pairing
from .pictures import Size, describe_size
from .trimming import Trim


@dataclass(frozen=True)
class ClipFiles:
    """Where a clip lies, and how it is read.

    Args:
        frames: see `open_frames`.
        masks: visible masks of one object, see `open_masks`.
        depth: see `read_depth`; None for none.
        amodal: whole-object masks, read like `masks`; None for none.
        object_id, mask_kind: which object, see `open_masks`.
        pair, missing_masks: how masks and depth are paired with frames, see `amodal.runtime.files.pairing`.
        trim: which frames are used.
        depth_kind: what depth means, see `read_depth`.
    """

    frames: PathLike
    masks: PathLike
    depth: PathLike | None = None
    amodal: PathLike | None = None
    object_id: ObjectId | None = None
    mask_kind: MaskKind = "auto"
    pair: Pair = "auto"
    missing_masks: Missing = "error"
    trim: Trim = field(default_factory=Trim)
    depth_kind: DepthKind | None = None


@dataclass(frozen=True)
class Clip:
    """A clip of T frames.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        modal: visible masks, bool [T, H, W].
        depth: [T, h, w], None without; `depth_kind` applied.
        amodal: whole-object masks, bool [T, H, W]; None without.
        names: file names of the frames, None for a video.
        fps: frames per second of the frames that are used, where the file says it.
        warnings: to be shown.
    """

    frames: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    amodal: NDArray[np.bool_] | None
    names: list[str] | None
    fps: float | None
    warnings: list[str]


def read_clip(files: ClipFiles, limit: int | None = None) -> Clip:
    """Reads a clip.

    Args:
        limit: the most frames allowed.

    Raises:
        InputError: anything that cannot be read, does not fit together, or could be read in two ways; its `field`
            names the argument at fault.
    """
    frames = open_frames(files.frames, files.trim.end)
    chosen = _choose(frames, files.trim, limit)
    modal = _open_modal(files, frames, chosen)
    amodal = None if files.amodal is None else _open_amodal(files, frames, chosen)
    depth = None if files.depth is None else _open_depth(files, frames, chosen)

    pictures = frames.read(chosen)
    size = (int(pictures.shape[1]), int(pictures.shape[2]))
    with argument("masks"):
        visible, notes = modal.read(size)
        notes += check_seen(visible)
    whole, more = (None, []) if amodal is None else amodal.read(size)
    maps, still_more = (None, []) if depth is None else depth.read(size)
    step = files.trim.step(frames.fps)
    return Clip(
        pictures,
        visible,
        maps,
        whole,
        None if frames.names is None else [frames.names[i] for i in chosen],
        None if frames.fps is None else frames.fps / step,
        [*frames.notes, *describe_moments(files.trim, chosen, frames.fps), *notes, *more, *still_more],
    )


def describe_moments(trim: Trim, chosen: range, fps: float | None) -> list[str]:
    """Says which frames seconds came to, because rates may vary within a video."""
    if fps is None or not any(moment is not None and moment.seconds for moment in (trim.start, trim.stop, trim.stride)):
        return []
    return [
        f"Frames {chosen.start} to {chosen[-1]} are used: seconds count at the average rate, {fps:g} frames per second."
    ]


def _choose(frames: Frames, trim: Trim, limit: int | None) -> range:
    chosen = trim.choose(frames.count, frames.fps)
    if limit is not None and len(chosen) > limit:
        raise InputError(
            f"{frames.path} holds {len(chosen)} frames where the bundle takes at most {limit}; choose fewer with "
            "`start`, `stop` and `stride`, or export a bundle that takes more.",
            field="frames",
        )
    return chosen


@dataclass(frozen=True)
class _Paired:
    """Masks and which of them belong to the frames."""

    masks: Masks
    pairing: Pairing

    def read(self, size: Size) -> tuple[NDArray[np.bool_], list[str]]:
        """Returns masks bool [T, H, W] of the frames' size, and warnings."""
        masks, notes = fit_masks(self.masks.read(self.pairing.at, size), size)
        return masks, [*self.masks.notes, *self.pairing.notes, *notes]


@argument("masks")
def _open_modal(files: ClipFiles, frames: Frames, chosen: range) -> _Paired:
    masks = open_masks(files.masks, files.object_id, files.mask_kind, frames=files.frames)
    return _paired(files, frames, masks, chosen)


@argument("amodal")
def _open_amodal(files: ClipFiles, frames: Frames, chosen: range) -> _Amodal:
    assert files.amodal is not None
    try:
        masks = open_masks(files.amodal, None, files.mask_kind, "amodal")
    except InputError:
        if files.object_id is None:
            raise
        masks = open_masks(files.amodal, files.object_id, files.mask_kind, "amodal")
    return _Amodal(files, _paired(files, frames, masks, chosen))


@dataclass(frozen=True)
class _Amodal:
    """Whole-object masks: of one object or, with `object_id`, of several."""

    files: ClipFiles
    paired: _Paired

    @argument("amodal")
    def read(self, size: Size) -> tuple[NDArray[np.bool_], list[str]]:
        """Returns masks bool [T, H, W] of the frames' size, and warnings."""
        try:
            masks, notes = self.paired.read(size)
        except InputError:
            if self.files.object_id is None or self.files.amodal is None:
                raise
            again = open_masks(self.files.amodal, self.files.object_id, self.files.mask_kind, "amodal")
            masks, notes = _Paired(again, self.paired.pairing).read(size)
        return masks, notes + check_seen(masks)


@argument("depth")
def _open_depth(files: ClipFiles, frames: Frames, chosen: range) -> _Depth:
    assert files.depth is not None
    source = open_depth(files.depth)
    return _Depth(files, source, Pairer(frames, source, chosen, "depth map").match(files.pair))


@dataclass(frozen=True)
class _Depth:
    """Depth and which of it belongs to the frames."""

    files: ClipFiles
    source: DepthSource
    pairing: Pairing

    @argument("depth")
    def read(self, size: Size) -> tuple[NDArray[np.float32], list[str]]:
        """Returns relative depth float32 [T, h, w] of the frames' ratio, and warnings."""
        depth, notes = self.source.relative(self.files.depth_kind, [i for i in self.pairing.at if i is not None])
        own = (int(depth.shape[1]), int(depth.shape[2]))
        if not near_ratio(own, size) and near_ratio(own[::-1], size):
            raise InputError(
                f"The frames are {describe_size(size)} but the depth is {describe_size(own)}; is it of frames that "
                "were not turned upright? Give depth of the upright frames."
            )
        if not near_ratio(own, size):  # of networks that see squares, for instance
            notes.append(
                f"The depth is {describe_size(own)}, another shape of picture than the frames, {describe_size(size)}; "
                "it was stretched to them."
            )
        return depth, [*self.source.notes, *self.pairing.notes, *notes]


def _paired(files: ClipFiles, frames: Frames, masks: Masks, chosen: range) -> _Paired:
    pairer = Pairer(frames, masks, chosen, numbered=masks.numbered)
    return _Paired(masks, pairer.match(files.pair, files.missing_masks))
