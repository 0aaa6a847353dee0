"""Tells what the colours of a clip's masks are: flat ids on black, or a picture.

A colour is written as one number, `red << 16 | green << 8 | blue`. Where hardly a pixel lies between its neighbours in
any channel, each colour is an id. Otherwise edges are blended, by antialiasing or compression: the *main* colours are
those of blocks of 2x2 pixels, and every other pixel gets the nearest of the main colours around it, because a blend of
two may look like a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .levels import NEIGHBOURS, Bools, Verdict, count_levels

_CRISP = 0.1  # the largest share of pixels at edges that lie between their neighbours, in flat colours
_SAME = 6  # distance up to which compressed pixels have one colour
_ALIKE = 32  # distance up to which flat pixels may be of one main colour, if one shade is far rarer
_OWN = 16  # distance up to which a pixel has a main colour unless it lies between its neighbours
_EVEN = 24  # the largest difference of neighbours, in any channel, inside an area
_MOST = 254  # main colours
_FEWEST = 4  # blocks of 2x2 pixels of a main colour
_BLENDED = 0.5  # share of blended pixels in the objects from which the clip is a picture
_REACH = 2  # pixels to either side in which a blended pixel looks for main colours
_ROUNDS = 8


def pack(frame: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Returns colours [H, W, 3] as numbers [H, W]."""
    import cv2

    four = cv2.cvtColor(frame, cv2.COLOR_RGB2BGRA)
    return cast("NDArray[np.int32]", four.view("<u4")[..., 0].astype(np.int32) & 0xFFFFFF)


def unpack(colours: Any) -> NDArray[np.int32]:
    """Returns red, green and blue of colours [...] as [..., 3]."""
    numbers = np.asarray(colours, np.int32)
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1)


class Colours:
    """Colours of a clip.

    Args:
        frames: uint8 [H, W, 3], all of one size.

    Attributes:
        levels: the colours and how frequent each is; of blended edges, only the main colours.
        share: of all pixels that were given to a main colour.
    """

    def __init__(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        self._frames = [np.ascontiguousarray(frame) for frame in frames]
        self._labels: list[NDArray[np.uint8]] = []  # places in `_mains`, where edges are blended
        self._mains: list[int] = []
        self.levels = count_levels(pack(frame) for frame in self._frames)
        self.share = 0.0

    @property
    def has_mains(self) -> bool:
        """Whether edges are blended, and pixels were given to main colours."""
        return bool(self._mains)

    def like(self, frames: Sequence[NDArray[np.uint8]]) -> Colours:
        """Returns other frames of the clip, read with the main colours of these."""
        other = Colours(frames)
        if self._mains:
            other._mains = self._mains
            other._labels = [_to_main_colours(frame, self._mains) for frame in other._frames]
            other.levels = count_levels(np.asarray(self._mains)[labels] for labels in other._labels)
        return other

    def fits(self, frame: NDArray[np.uint8]) -> bool:
        """Returns whether all areas of another frame [H, W, 3] have one of the main colours."""
        return not _has_other_areas(frame, self._mains)

    def pick(self, colour: int) -> Bools:
        """Returns the pixels of one of the colours: [T, H, W]."""
        if self._mains:
            return np.stack([labels == self._mains.index(colour) for labels in self._labels])
        return np.stack([pack(frame) == colour for frame in self._frames])

    def filled(self) -> Bools:
        """Returns the pixels that are not black: [T, H, W]."""
        if self._mains:
            black = self._mains.index(0) if 0 in self._mains else len(self._mains)
            return np.stack([labels != black for labels in self._labels])
        return np.stack([pack(frame) != 0 for frame in self._frames])

    def bright(self) -> Bools:
        """Returns the pixels whose luma is above 128, as the reference reads colours: [T, H, W]."""
        from PIL import Image

        return np.stack([np.asarray(Image.fromarray(frame).convert("L")) > 128 for frame in self._frames])

    def weigh(self) -> Verdict:
        """Tells what the colours are, and gives the pixels of blended edges to main colours."""
        if not self._mains and self.levels.objects and _blended(self._frames):
            mains = _main_colours(self._frames)
            if isinstance(mains, str):
                return mains
            seen = unpack(self.levels.values)
            blended = self.levels.counts[_distances(seen, mains).min(axis=0) > _ALIKE].sum()
            painted = self.levels.counts[np.linalg.norm(seen, axis=-1) > _ALIKE].sum()
            if blended > _BLENDED * painted:
                return "picture"
            if any(_has_other_areas(frame, mains) for frame in self._frames):
                return "unclear"
            self.share = float(blended / self.levels.counts.sum())
            self._mains, self._labels = mains, [_to_main_colours(frame, mains) for frame in self._frames]
            self.levels = count_levels(np.asarray(mains)[labels] for labels in self._labels)
        objects = self.levels.objects
        if not objects:
            return "empty"
        return "binary" if len(objects) == 1 and self.levels.has_background else "ids"


def _distances(pixels: NDArray[Any], mains: list[int]) -> NDArray[np.float64]:
    """Returns the distances of pixels [N, 3] to each main colour: [mains, N]."""
    return np.stack([np.linalg.norm(pixels - colour, axis=-1) for colour in unpack(mains)])


def _has_other_areas(frame: NDArray[np.uint8], mains: list[int]) -> bool:
    """Returns whether even pixels of a frame are far from all main colours, as in small objects in a JPEG."""
    import cv2

    low, high = cv2.erode(frame, NEIGHBOURS), cv2.dilate(frame, NEIGHBOURS)
    even = frame[((high - low) <= _EVEN).all(axis=-1) & (frame > _ALIKE).any(axis=-1)]
    return bool((_distances(even.astype(np.int32), mains).min(axis=0) > _ALIKE).any())


class _Edges(NamedTuple):
    flat: Bools  # [H, W], the same as all neighbours
    between: Bools  # [H, W], between its neighbours in some channel


def _edges(frame: NDArray[np.uint8]) -> _Edges:
    import cv2

    low, high = (np.asarray(extreme(frame, NEIGHBOURS), np.uint8) for extreme in (cv2.erode, cv2.dilate))
    flat = pack(low) == pack(high)
    between = np.zeros_like(flat)
    at = np.flatnonzero(~flat)
    below, value, above = (one.reshape(-1, 3)[at] for one in (low, frame, high))
    between.ravel()[at] = ((below < value) & (value < above)).any(axis=-1)
    return _Edges(flat, between)


def _blended(frames: Sequence[NDArray[np.uint8]]) -> bool:
    edges = between = 0
    for frame in frames:
        found, painted = _edges(frame), pack(frame) != 0
        edges += int((~found.flat & painted).sum())
        between += int((found.between & painted).sum())
    return between > _CRISP * edges


def _starts_block(frame: NDArray[np.uint8]) -> Bools:
    """Tells of each pixel whether 2x2 pixels from it on have one colour: [H, W]."""
    code = np.pad(pack(frame), (0, 1), constant_values=-1)
    here = code[:-1, :-1]
    return cast("Bools", (here == code[:-1, 1:]) & (here == code[1:, :-1]) & (here == code[1:, 1:]))


def _main_colours(frames: Sequence[NDArray[np.uint8]]) -> list[int] | Verdict:
    """Returns the main colours; `unclear` if two are too much alike, `picture` if there are too many."""
    blocks = [pack(frame)[_starts_block(frame)] for frame in frames]
    seen = count_levels(one for one in blocks if one.size)
    order = np.argsort(-seen.counts, kind="stable")
    mains: list[tuple[int, int]] = []
    for colour, count in zip(seen.values[order].tolist(), seen.counts[order].tolist(), strict=True):
        if count < _FEWEST:
            break
        if np.linalg.norm(unpack(colour)) <= _OWN:
            colour = 0  # black that compression has moved
        alike = [(n, np.linalg.norm(unpack(main) - unpack(colour))) for main, n in mains]
        near = [(n, distance) for n, distance in alike if distance <= _ALIKE]
        if any(distance > _SAME and count > n / 5 for n, distance in near):
            return "unclear"
        if not near:
            mains.append((colour, count))
        if len(mains) > _MOST:
            return "picture"
    return [colour for colour, _ in mains] or "picture"


def _to_main_colours(frame: NDArray[np.uint8], mains: list[int]) -> NDArray[np.uint8]:
    """Returns the place in `mains` of each pixel's main colour: [H, W]."""
    code, colours, edges = pack(frame), unpack(mains), _edges(frame)
    unique, inverse = np.unique(code, return_inverse=True)
    distances = _distances(unpack(unique), mains)
    nearest = distances.argmin(axis=0)[inverse].reshape(code.shape)
    near = (distances.min(axis=0) <= _OWN)[inverse].reshape(code.shape)

    # Labels are places in `mains`, from 1; 0 is open.
    flat = np.where(edges.flat & near, nearest + 1, 0).astype(np.uint8)
    own = near & ~edges.between
    doubtful = np.flatnonzero(near & edges.between)
    own.ravel()[doubtful] = (_around(flat, doubtful) == nearest.ravel()[doubtful, None] + 1).any(axis=1)
    labels = np.where(own, nearest + 1, 0).astype(np.uint8)
    for _ in range(_ROUNDS):
        at = np.flatnonzero(labels == 0)
        if not at.size:
            break
        labels.ravel()[at] = _nearest_around(labels, at, frame.reshape(-1, 3)[at], colours)
    return np.where(labels == 0, nearest, labels - 1).astype(np.uint8)


def _around(labels: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Returns the labels around pixels, [N, 25]; 0 outside the frame."""
    width = labels.shape[1]
    padded = np.pad(labels, _REACH)
    rows, columns = at // width, at % width
    steps = range(2 * _REACH + 1)
    return np.stack([padded[rows + y, columns + x] for y in steps for x in steps], axis=1)


def _nearest_around(
    labels: NDArray[np.uint8], at: NDArray[np.intp], pixels: NDArray[np.uint8], colours: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Returns the label around each pixel whose colour is nearest to it, 0 if all around it are open: [N]."""
    around = _around(labels, at)
    best, closest = np.zeros(len(at), np.uint8), np.full(len(at), np.inf)
    for column in around.T:
        distance = np.where(column > 0, ((colours[column.astype(int) - 1] - pixels) ** 2).sum(axis=1), np.inf)
        better = distance < closest
        best[better], closest[better] = column[better], distance[better]
    return cast("NDArray[np.uint8]", best)
