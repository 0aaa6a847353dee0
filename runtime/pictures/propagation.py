"""Copies hidden pixels of an object from frames in which they are visible.

This is the first step of video completion (Gao, Saraf, Huang, Kopf, "Flow-edge Guided Video Completion", ECCV 2020;
Zhou, Li, Chan, Loy, "ProPainter", ICCV 2023), here along the motion of one object with a known amodal mask instead of
optical flow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from .registration import Bools, Bytes, Floats, Motion, ObjectFrame, largest_diameter, object_frame, register

REACH = 64
"""Frames before and after a stretch of a long clip that its hidden parts are copied from."""
MOST = 32
"""Sources of one frame."""

_FEWEST = 10  # visible pixels that a frame needs to be copied from or compared with
_SHOWN = 0.7  # share of a source pixel that must be visible
_UNKNOWN = 3000.0  # squared levels: assumed error per frame of distance, if two frames cannot be compared
_NOISE = 100.0  # squared levels: error of a correct motion


class Propagated(NamedTuple):
    """A clip with hidden pixels of its object copied from other frames."""

    rgb: Bytes  # [T, H, W, 3], the frames with the copied pixels
    known: Bools  # [T, H, W], the object's visible and copied pixels


class _Kept(NamedTuple):
    """What is kept of a frame: the box around the whole object."""

    size: tuple[int, int]  # (H, W) of the frame
    box: tuple[slice, slice]
    visible: Bytes  # [h, w, 4], the visible part on black, with its mask (0 or 255) as fourth channel
    whole: Bools  # [h, w]
    pixels: int  # visible ones
    diameter: float


class _Source(NamedTuple):
    visible: Bytes  # [H, W, 4]
    object_frame: ObjectFrame


def propagate(rgb: Bytes, modal: Bools, amodal: Bools) -> Propagated:
    """Fills hidden parts of an object from the frames of one clip in which they are visible.

    Each frame with hidden pixels is registered with every frame that has ten visible ones (`registration`). A hidden
    pixel becomes the mean of the pixels there, weighted with 1 / (e + 100)^2. e is the mean squared error over the
    pixels visible in both; frames with e above their variance (and 100) are worse than the mean colour and left out.
    With fewer than ten pixels visible in both, e is 3000 times the distance in frames.

    Args:
        rgb: uint8 [T, H, W, 3]; H and W below 32768.
        modal, amodal: bool [T, H, W], visible and whole object.
    """
    count = len(modal)
    sources = SourceFrames(count, reach=count, most=count)
    sources.add(0, rgb, modal, amodal)
    return sources.fill(0, rgb, modal, amodal)


class SourceFrames:
    """The frames that hidden parts of one object are copied from, in a clip too long to be held.

    A frame is filled, as `propagate` says, from others that show the object and are at most `reach` frames away. If
    there are more than `most`, half of that are the nearest, since motions between near frames are found best, and half
    are spread over the others, since what is hidden for long is seen only far away. Both bound the time; `reach` bounds
    the memory, in which only the boxes around the object are kept. Stretches are filled one after the other:

        sources = SourceFrames(count)                       # one per object
        for stretch in stretches:                           # ranges of frame numbers
            needed = sources.missing(stretch)               # the same for all objects that are fed alike
            sources.add(needed.start, *clip_of(needed))     # rgb, modal, amodal of these frames; none if it is empty
            shown = sources.fill(stretch.start, *clip_of(stretch))

    The result depends on the stretch and the frames within reach alone, so a run may begin at any stretch, and
    stretches may overlap. With everything in one stretch and within reach it is that of `propagate`.
    """

    def __init__(self, count: int, reach: int = REACH, most: int = MOST) -> None:
        """Begins with no frame.

        Args:
            count: frames of the clip.
            reach: how many frames before and after a stretch are looked at.
            most: sources of one frame.
        """
        self._count, self._reach, self._most = count, reach, most
        self._kept: dict[int, _Kept | None] = {}

    def missing(self, numbers: range) -> range:
        """Returns the frames still to be added before a stretch can be filled, itself included; maybe none."""
        wanted = [number for number in self._around(numbers) if number not in self._kept]
        return range(wanted[0], wanted[-1] + 1) if wanted else range(0)

    def add(self, start: int, rgb: Bytes, modal: Bools, amodal: Bools) -> None:
        """Keeps frames from number `start` on: uint8 [n, H, W, 3], bool [n, H, W] twice."""
        for index in range(len(modal)):
            self._kept[start + index] = _kept(rgb[index], modal[index], amodal[index] | modal[index])

    def fill(self, start: int, rgb: Bytes, modal: Bools, amodal: Bools) -> Propagated:
        """Fills a stretch of the clip that begins at frame `start`, and forgets frames out of its reach.

        Args:
            rgb, modal, amodal: of its frames, as in `propagate`; they and those around them must have been added.
        """
        around = self._around(range(start, start + len(modal)))
        self._kept = {number: self._kept[number] for number in around if number in self._kept}
        amodal = amodal | modal
        if (amodal == modal).all():
            return Propagated(rgb, modal)
        diameter = max((kept.diameter for kept in self._kept.values() if kept is not None), default=0.0)
        diameter = max(diameter, largest_diameter(amodal))
        # Neighbours share most of their sources, so the prepared ones of two frames are enough.
        prepared = lru_cache(self._most + 2)(lambda number: self._prepared(number, diameter))
        filled, known = rgb.copy(), modal.copy()
        for index, hidden in enumerate(amodal & ~modal):
            if hidden.any():
                number = start + index
                target = object_frame(rgb[index], modal[index], amodal[index], diameter)
                sources = [(abs(number - s), prepared(s)) for s in self._sources_of(number)]
                _fill(filled[index], known[index], amodal[index], target, sources)
        return Propagated(filled, known)

    def _around(self, numbers: range) -> range:
        return range(max(numbers.start - self._reach, 0), min(numbers.stop + self._reach, self._count))

    def _sources_of(self, number: int) -> list[int]:
        """Returns the frames that a frame is filled from, in the clip's order."""
        able = [
            other
            for other in self._around(range(number, number + 1))
            if other != number and (kept := self._kept.get(other)) is not None and kept.pixels >= _FEWEST
        ]
        by_distance = sorted(able, key=lambda other: abs(other - number))
        if len(able) <= self._most:
            return sorted(able)
        nearest, rest = by_distance[: (self._most + 1) // 2], sorted(by_distance[(self._most + 1) // 2 :])
        spread = np.linspace(0, len(rest) - 1, self._most // 2).round().astype(int)
        return sorted([*nearest, *(rest[index] for index in spread)])

    def _prepared(self, number: int, diameter: float) -> _Source:
        kept = self._kept[number]
        assert kept is not None
        visible, whole = np.zeros((*kept.size, 4), np.uint8), np.zeros(kept.size, np.bool_)
        visible[kept.box], whole[kept.box] = kept.visible, kept.whole
        return _Source(visible, object_frame(visible[..., :3], visible[..., 3] > 0, whole, diameter))


def _kept(picture: Bytes, seen: Bools, whole: Bools) -> _Kept | None:
    """Returns what is kept of a frame; None if there is no object."""
    if not whole.any():
        return None
    box = _box_of(whole)
    visible = np.concatenate([picture[box], np.full((*whole[box].shape, 1), 255, np.uint8)], axis=-1)
    visible *= seen[box][..., None]
    diameter = float(np.sqrt(whole.sum()))
    return _Kept(whole.shape, box, visible, whole[box].copy(), int(seen.sum()), diameter)


def _fill(picture: Bytes, known: Bools, whole: Bools, target: ObjectFrame, sources: list[tuple[int, _Source]]) -> None:
    """Fills what is hidden of a frame, in place: `picture` uint8 [H, W, 3] and `known`, the visible part before.

    Args:
        sources: each with its distance in frames.
    """
    box = _box_of(whole)
    colours_here, seen = picture[box], known[box]
    hidden = whole[box] & ~seen
    total, weights = np.zeros(colours_here.shape, np.float32), np.zeros(hidden.shape, np.float32)
    for distance, source in sources:
        colours, there = _moved(source.visible, register(target, source.object_frame), box)
        error = _error(colours, colours_here, there & seen, _UNKNOWN * distance)
        if error is not None:
            weight = (there & hidden) * np.float32(1 / (error + _NOISE) ** 2)
            total += colours * weight[..., None]
            weights += weight
    found = weights > 0
    colours_here[found] = np.rint(total[found] / weights[found][:, None]).astype(np.uint8)
    seen |= found


def _box_of(mask: Bools) -> tuple[slice, slice]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def _moved(visible: Bytes, motion: Motion, box: tuple[slice, slice]) -> tuple[Floats, Bools]:
    """Warps another frame into a box of this one: colours float32 [h, w, 3], and where they are visible."""
    y, x = np.mgrid[box]
    u, v = (motion[i, 0] * x + motion[i, 1] * y + motion[i, 2] for i in (0, 1))
    moved = cv2.remap(visible, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    share = moved[..., 3:] / np.float32(255)
    return moved[..., :3] / np.maximum(share, _SHOWN), share[..., 0] > _SHOWN


def _error(colours: Floats, picture: Bytes, both: Bools, unknown: float) -> float | None:
    """Returns the mean squared error where both frames show the object; None if that of the mean colour is smaller."""
    if both.sum() < _FEWEST:
        return unknown
    wanted = picture[both].astype(np.float32)
    error = float(np.square(colours[both] - wanted).mean())
    return error if error <= max(float(wanted.var(axis=0).mean()), _NOISE) else None
