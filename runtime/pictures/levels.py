"""Tells what the grey levels of a clip's masks are: one object, ids of several, or a soft mask.

Levels that fill areas are ids; levels that lie between darker and brighter neighbours are soft edges. Each pixel that
is neither 0 nor the brightest level is compared with its 3x3 neighbourhood:

- *flat*: the same everywhere. Measured on black and white masks, JPEG (quality 20 to 100) and antialiasing leave no
  such pixel in the middle, and H.264 only within 16 levels of black and white.
- *slope*: between a darker and a brighter neighbour. Of the pixels that are not flat, ids have none except where three
  areas meet; antialiased, blurred or compressed edges have 40 % and more.
- *gentle*: neighbours differ by two levels at most. Counts as a slope where the levels leave no gap up to the
  brightest.

Small areas have no flat pixels and slopes where they touch, but lie in blocks of 2x2 pixels of one level.
A level with flat pixels that is far more frequent than the levels around it *stands* alone. Ramps that are so long that
they have flat pixels have as many of each level. Compression spreads an id over several levels; then pixels of the
middle are *even* (neighbours within 6 levels), as at most 0.7 % are in one compressed, antialiased or slightly blurred
mask. Ids with soft edges show both signs, and are `unclear`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Frames = Sequence[NDArray[Any]]
Bools = NDArray[np.bool_]
Verdict = Literal["empty", "binary", "ids", "matte", "unclear", "picture"]

_CRISP = 0.1  # the largest share of slopes in ids
_SOFT = 0.4  # the smallest in a soft mask
_NEAR = 16  # of 255: how far compression moves black and white
_GAP = 8  # of 255: the largest step of a ramp
_BLOCKS = 0.95  # the smallest share of pixels in 2x2 blocks of one level, in ids that touch one another
_SPIKE = 4  # how much more frequent a standing level is than those around it
_EVEN = 0.02  # the largest share of even pixels between black and white in a mask that is not smooth
_COMPRESSED = 0.7  # from this share of slopes on near black and white, the mask was compressed
_EXTREMES = 0.5  # the smallest share of black and white in a soft mask
NEIGHBOURS = np.ones((3, 3), np.uint8)


class Levels(NamedTuple):
    """Whole numbers of a clip and how frequent each is: both [N], by rising level."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def objects(self) -> list[int]:
        """All levels but 0."""
        return [int(value) for value in self.values if value != 0]

    @property
    def has_background(self) -> bool:
        """Whether any pixel is 0."""
        return bool((self.values == 0).any())


def count_levels(arrays: Iterable[NDArray[Any]]) -> Levels:
    """Counts each value of integer arrays; fastest for 8 and 16 bits, and where values form areas."""
    each = [_count(array) for array in arrays]
    if not each:
        return Levels(np.zeros(0, np.int64), np.zeros(0, np.int64))
    values, index = np.unique(np.concatenate([one.values for one in each]), return_inverse=True)
    counts = np.bincount(index, weights=np.concatenate([one.counts for one in each])).astype(np.int64)
    return Levels(values, counts)


def _count(array: NDArray[Any]) -> Levels:
    if array.dtype not in (np.uint8, np.uint16):
        return _count_runs(array.ravel())
    import cv2

    size = np.iinfo(array.dtype).max + 1
    counts = cv2.calcHist([array], [0], None, [size], [0, size]).ravel().astype(np.int64)
    values = np.flatnonzero(counts)
    return Levels(values, counts[values])


def _count_runs(flat: NDArray[Any]) -> Levels:
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    lengths = np.diff(np.r_[starts, flat.size])
    values, index = np.unique(flat[starts], return_inverse=True)
    return Levels(values.astype(np.int64), np.bincount(index, weights=lengths).astype(np.int64))


class Greys:
    """Grey levels of a clip.

    Args:
        frames: [H, W] of bool, integers or floats, all of one size.
        source: what they are from, for messages.
        lossy: whether they were compressed with loss, so that values near black and white mean these.

    Raises:
        InputError: NaN, negative floats, or floats that are neither in [0, 1] nor whole.
    """

    def __init__(self, frames: Frames, source: str, lossy: bool = False) -> None:
        kind = np.result_type(*{frame.dtype for frame in frames})
        if kind.kind not in "biuf":
            raise InputError(f"{source} holds {kind} values; expected bool, integers or floats.")
        self._units: Frames | None = None  # floats in [0, 1]
        if kind.kind == "f":
            frames, self._units = _from_floats(frames, source)
        elif kind == np.bool_:
            frames = [frame.view(np.uint8) for frame in frames]
        self.frames = _compact(frames)
        self.source, self.lossy = source, lossy
        self.levels = count_levels(self.frames)
        dtype = self.frames[0].dtype
        # What the range ends with; None where integers have no usual one.
        self.limit = 1 if kind == np.bool_ else int(np.iinfo(dtype).max) if dtype.kind == "u" else None

    @property
    def holds_fractions(self) -> bool:
        """Whether the values are floats in [0, 1]; levels are then in 255ths."""
        return self._units is not None

    @property
    def half(self) -> float:
        """Half of the range, above which a soft mask is the object: 128, 32768 or 0.5."""
        return 0.5 if self._units is not None or self.limit == 1 else (int(self.limit or 1) + 1) // 2

    def pick(self, level: int) -> Bools:
        """Returns the pixels of one level: [T, H, W]."""
        return np.stack([frame == level for frame in self.frames])

    def filled(self) -> Bools:
        """Returns the pixels of all levels but 0: [T, H, W]."""
        return np.stack([frame != 0 for frame in self.frames])

    def bright(self) -> Bools:
        """Returns the pixels above half of the range: [T, H, W]."""
        if self.limit is None:
            low, high = self.levels.values[[0, -1]].tolist()
            raise InputError(
                f"{self.source} holds values from {low} to {high}, which have no half; give ids or 0 to 255."
            )
        return np.stack([frame > self.half for frame in self._units or self.frames])

    def weigh(self) -> Verdict:
        """Tells what the levels are; see the module's docstring."""
        objects = self.levels.objects
        if not objects:
            return "empty"
        if len(objects) == 1 and (self.levels.has_background or objects[0] in (1, self.limit)):
            return "binary"
        if len(objects) == 1 or objects[0] < 0 or self.limit is None:
            return "ids"
        return _weigh(self.frames, self.levels, self.limit / 255, self.lossy)


def _from_floats(frames: Frames, source: str) -> tuple[Frames, Frames | None]:
    """Returns floats as integers: whole numbers as they are, fractions of 1 in 255ths and themselves besides."""
    low, high = min(float(f.min()) for f in frames), max(float(f.max()) for f in frames)
    if not np.isfinite([low, high]).all():
        raise InputError(f"{source} holds NaN or infinity; expected finite values, 0 where the object is not.")
    if low < 0:
        raise InputError(
            f"{source} holds floats from {low:.4g} to {high:.4g}, which may be logits, distances or scaled values; "
            "give the mask itself, such as `values > 0`."
        )
    if all((f == np.rint(f)).all() for f in frames):
        return [f.astype(np.int64) for f in frames], None
    if high > 1.001:
        raise InputError(
            f"{source} holds fractions and values up to {high:.4g}; expected floats in [0, 1], or whole numbers."
        )
    return [np.rint(np.minimum(f, 1) * 255).astype(np.uint8) for f in frames], frames


def _compact(frames: Frames) -> Frames:
    """Returns integer frames in one dtype: uint8 or uint16 as they are or if wider ones fit into them, else int64."""
    kinds = {frame.dtype for frame in frames}
    if len(kinds) == 1 and kinds <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return [np.ascontiguousarray(frame) for frame in frames]
    low, high = min(int(f.min()) for f in frames), max(int(f.max()) for f in frames)
    if high > np.iinfo(np.int64).max:
        raise InputError(f"The masks hold the value {high}; expected ids below {np.iinfo(np.int64).max}.")
    small = np.uint16 if np.dtype(np.uint16) in kinds or high > 255 else np.uint8
    dtype = small if low >= 0 and high <= np.iinfo(small).max else np.int64
    return [frame.astype(dtype) for frame in frames]


class _Shape(NamedTuple):
    """How often each level, by its value, occurs, is flat, a slope or gentle; and pixels of the middle in all."""

    counts: NDArray[np.int64]
    flat: NDArray[np.int64]
    slope: NDArray[np.int64]
    gentle: NDArray[np.int64]
    even: int  # in the middle, and hardly different from their neighbours
    steep: int  # very different from one of their neighbours
    blocks: NDArray[np.int64]  # part of 2x2 pixels of one level


def _weigh(frames: Frames, levels: Levels, unit: float, lossy: bool) -> Verdict:
    top, near = int(levels.values[-1]), round(_NEAR * unit)
    shape = _shape(frames, levels, top, unit)
    middle = shape.counts.copy()
    middle[[0, top]] = 0
    edges = int((middle - shape.flat).sum())
    inner = slice(near + 1, max(top - near, near + 1))
    slopes = int(shape.slope.sum())
    sure = lossy
    lossy = lossy or slopes - shape.slope[inner].sum() >= _COMPRESSED * max(slopes, 1)
    standing = _standing(shape, top, unit, lossy)
    without_gaps = np.diff(np.r_[0, levels.values]).max() <= min(_GAP * unit, top / 16)
    soft = shape.slope + (shape.gentle if without_gaps else 0)
    smooth = shape.steep <= 0.01 * middle.sum()
    if not sure and (soft.sum() <= _CRISP * edges or (not smooth and _in_blocks(middle, shape.blocks))):
        return "ids"
    if sure and not shape.counts[inner].any():  # black and white, as a video with crisp edges keeps them
        return "matte"
    even = not smooth and shape.even > _EVEN * shape.counts[inner].sum()
    if standing.any() or even or soft.sum() < _SOFT * edges:
        return "unclear"
    extremes = shape.counts.sum() - shape.counts[inner].sum()
    return "matte" if extremes >= _EXTREMES * shape.counts.sum() else "picture"


def _in_blocks(middle: NDArray[np.int64], blocks: NDArray[np.int64]) -> bool:
    """Tells whether nearly all pixels, and some of each level, are in blocks, unlike the noise of a fine JPEG."""
    return bool(blocks.sum() >= _BLOCKS * middle.sum() and (blocks[middle > 0] > 0).all())


def _shape(frames: Frames, levels: Levels, top: int, unit: float) -> _Shape:
    import cv2

    counts, flat, slope, gentle, blocks = (np.zeros(top + 1, np.int64) for _ in range(5))
    counts[levels.values] = levels.counts
    near, even, steep = round(_NEAR * unit), 0, 0
    for frame in frames:
        at = np.flatnonzero((frame != 0) & (frame != top))
        if not at.size:
            continue
        low, high = (extreme(frame, NEIGHBOURS).ravel()[at] for extreme in (cv2.erode, cv2.dilate))
        value, step = frame.ravel()[at], high - low
        is_flat, is_slope = step == 0, (low < value) & (value < high)
        is_gentle = (step <= 2 * unit) & ~is_flat & ~is_slope
        each = (flat, is_flat), (slope, is_slope), (gentle, is_gentle), (blocks, _in_block(frame, at))
        for total, chosen in each:
            total += np.bincount(value[chosen], minlength=top + 1)
        even += int(((step <= 6 * unit) & (value > near) & (value < top - near)).sum())
        steep += int((step > min(64 * unit, top / 4)).sum())
    return _Shape(counts, flat, slope, gentle, even, steep, blocks)


def _in_block(frame: NDArray[Any], at: NDArray[np.intp]) -> Bools:
    """Tells of pixels of a frame whether any 2x2 pixels around them have one level: [N]."""
    rows, columns = np.divmod(at, frame.shape[1])
    padded, value = np.pad(frame, 1), frame.ravel()[at]
    same = {(y, x): padded[rows + 1 + y, columns + 1 + x] == value for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}
    corners = [same[y, 0] & same[0, x] & same[y, x] for y in (-1, 1) for x in (-1, 1)]
    return cast("Bools", np.any(corners, axis=0))


def _standing(shape: _Shape, top: int, unit: float, lossy: bool) -> Bools:
    """Returns for each level whether it has flat pixels and is far more frequent than the levels around it."""
    counts, reach = shape.counts, round(3 * unit)
    sums = np.r_[0, np.cumsum(counts)]
    level = np.arange(top + 1)
    around = sums[np.minimum(level + reach, top) + 1] - sums[np.maximum(level - reach, 0)] - counts
    stands = (shape.flat > 0) & (counts > _SPIKE * around / 6)
    if lossy:  # a video may hold black as 1 or white as 253
        end = min(round(4 * unit), top // 2)
        stands[: end + 1] = stands[top - end :] = False
    return cast("Bools", stands)
