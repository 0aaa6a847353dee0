"""Reads the masks of all objects in pictures once, and keeps them compressed: a few kilobytes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from ..errors import InputError
from ..paths import natural_key
from ..pictures.images import Size
from ..pictures.object_ids import parse_colour
from ..pictures.objects import MaskKind, ObjectId, format_id, same_id
from ..pictures.steady import SteadyReading
from .masks import read_mask_picture
from .objects import join_ids
from .pictures import describe_size
from .sequences import Pictures
from .video import Video

_EVERY = 16  # pictures between two reports of progress
_SAMPLE = 48  # pictures by which the reading of a long clip is decided
ONLY = 1
"""The id of an object that has none."""


class MaskStore:
    """Masks of several objects, compressed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._runs: dict[ObjectId, list[bytes | None]] = {}
        self.size: Size = (0, 0)

    @property
    def ids(self) -> list[ObjectId]:
        """The objects, in the order in which they were expected or found."""
        return list(self._runs)

    def expect(self, object_id: ObjectId) -> None:
        """Lists an object, which may be seen nowhere."""
        self._runs.setdefault(object_id, [None] * self._count)

    def sort(self) -> None:
        """Puts objects into the natural order of their ids."""
        self._runs = dict(sorted(self._runs.items(), key=lambda one: natural_key(format_id(one[0]))))

    def forget(self, objects: Sequence[ObjectId]) -> None:
        """Drops the masks of objects."""
        for object_id in objects:
            self._runs.pop(object_id, None)

    def add(self, object_id: ObjectId, index: int, mask: NDArray[np.bool_], source: str) -> None:
        """Keeps the mask bool [H, W] of a frame.

        Raises:
            InputError: it has another size than those before.
        """
        size = (int(mask.shape[0]), int(mask.shape[1]))
        if self.size not in ((0, 0), size):
            raise InputError(
                f"{source} has a mask {describe_size(size)} at frame {index} of the clip after masks "
                f"{describe_size(self.size)}; expected one size for the whole clip."
            )
        self.size = size
        runs = self._runs.setdefault(object_id, [None] * self._count)
        runs[index] = coco.encode(np.asfortranarray(mask, np.uint8))["counts"] if mask.any() else None

    def read(self, object_id: ObjectId, indices: Sequence[int]) -> NDArray[np.bool_]:
        """Returns masks bool [n, H, W]; empty ones where the object is not seen."""
        result = np.zeros((len(indices), *self.size), np.bool_)
        runs = self._runs.get(object_id, [None] * self._count)
        for mask, index in zip(result, indices, strict=True):
            counts = runs[index]
            if counts is not None:
                mask[:] = coco.decode({"size": list(self.size), "counts": counts})
        return result

    def seen(self, object_id: ObjectId) -> list[int]:
        """Returns the frames in which the object is seen."""
        return [index for index, runs in enumerate(self._runs.get(object_id, [])) if runs is not None]


def store_pictures(
    pictures: Pictures,
    at: Sequence[int | None],
    objects: Sequence[ObjectId] | None,
    kind: MaskKind,
    every: Callable[[int, int], None],
    store: MaskStore,
    name: ObjectId | None = None,
) -> list[str]:
    """Reads masks in pictures or arrays into a store, all of them in one way; returns warnings.

    A sample over the clip decides how values are read. A picture with values that might have decided otherwise is taken
    into it; if that does decide otherwise, reading begins again.

    Args:
        at: the picture of each frame, rising; None for an empty mask.
        objects: ids, or None for all.
        kind: see `amodal.runtime.pictures.objects`.
        every: called with the frames that are read, and how many there are.
        name: what an object without an id is called in the store; None for `ONLY`, where ids are allowed.

    Raises:
        InputError: no such object, values that can be read in two ways, or pictures of different sizes.
    """
    source, lossy = str(pictures.path), isinstance(pictures, Video)
    places = [(index, number) for index, number in enumerate(at) if number is not None]
    numbers = [number for _, number in places]
    chosen = numbers[:: max(1, -(-len(numbers) // _SAMPLE))]
    reading = SteadyReading([read_mask_picture(one, lossy) for one in pictures.read(chosen)], source, kind)
    while (changed := _store_all(pictures, places, reading, objects, every, store, name)) is not None:
        reading = changed
    return reading.notes


def _store_all(
    pictures: Pictures,
    places: Sequence[tuple[int, int]],
    reading: SteadyReading,
    objects: Sequence[ObjectId] | None,
    every: Callable[[int, int], None],
    store: MaskStore,
    name: ObjectId | None,
) -> SteadyReading | None:
    """Reads all pictures into the store; returns another reading, by which to begin again, if one turns out right."""
    source, lossy = str(pictures.path), isinstance(pictures, Video)
    if not reading.has_ids:
        _refuse_ids(objects, source)
    for one in objects or [] if name is None else [name]:
        store.expect(one)
    found, named = dict[ObjectId, None](), dict[ObjectId, ObjectId]()
    for done, ((index, _), decoded) in enumerate(
        zip(places, pictures.read([number for _, number in places]), strict=True), 1
    ):
        picture = read_mask_picture(decoded, lossy)
        if reading.is_strange(picture):
            before, reading = reading.signature, reading.with_picture(picture)
            if reading.signature != before:
                store.forget([*named.values(), name or ONLY])
                return reading
        for own, mask in reading.masks(picture).items():
            if own is None:
                store.add(name or ONLY, index, mask, source)
                continue
            found[own] = None
            if name is not None and len(found) > 1:
                raise InputError(f"{source} holds {len(found)} objects ({join_ids(found)}); expected the masks of one.")
            wanted = _wanted(own, objects) if name is None else name
            if wanted is not None:
                named[own] = wanted
                store.add(wanted, index, mask, source)
        if done % _EVERY == 0 or done == len(places):
            every(done, len(places))
    if reading.has_ids and objects is not None:
        lacking = [o for o in objects if o not in named.values()]
        if lacking:
            raise InputError(
                f"{source} holds no object {lacking[0]} in the {len(places)} frames that are used, but "
                f"{join_ids(found) or 'nothing'}."
            )
    return None


def _wanted(own: ObjectId, objects: Sequence[ObjectId] | None) -> ObjectId | None:
    """Returns what an object is called; None if it is not wanted."""
    if objects is None:
        return own
    return next((one for one in objects if _same(one, own)), None)


def _same(asked: ObjectId, own: ObjectId) -> bool:
    # In colours, `ff0000` is one; in other ids it is a name.
    return same_id(asked, own) or (str(own).startswith("#") and parse_colour(asked) == parse_colour(own))


def _refuse_ids(objects: Sequence[ObjectId] | None, source: str) -> None:
    if objects is not None and [str(o) for o in objects] != [str(ONLY)]:
        raise InputError(
            f"{source} shows a single object without an id; leave out `objects`, or name it {ONLY}.", field="objects"
        )
