"""Reads the masks of all objects in pictures once, and keeps them compressed: a few kilobytes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from ..errors import InputError
from ..pictures.images import Size
from ..pictures.objects import MaskKind, MaskPicture, ObjectId, list_objects, read_object, same_id
from .listing import join_ranges
from .masks import read_mask_picture
from .objects import join_ids
from .sequences import Pictures
from .video import Video

_PIECE = 16  # pictures that are decoded at once
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
        """The objects in the order of their first frame."""
        return list(self._runs)

    def add(self, object_id: ObjectId, index: int, mask: NDArray[np.bool_]) -> None:
        """Keeps the mask bool [H, W] of a frame.

        Raises:
            InputError: it has another size than those before.
        """
        size = (int(mask.shape[0]), int(mask.shape[1]))
        if self.size not in ((0, 0), size):
            raise InputError(f"masks are {size[0]}x{size[1]} after masks of {self.size[0]}x{self.size[1]}.")
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
) -> tuple[MaskStore, list[str]]:
    """Reads masks in pictures or arrays: the reading is decided by a sample over the clip and holds for all of it.

    Args:
        at: the picture of each frame, rising; None for an empty mask.
        objects: ids, or None for all.
        kind: see `amodal.runtime.pictures.objects`.
        every: called with the frames that are read, and how many there are.

    Raises:
        InputError: no such object, values that can be read in two ways, or that differ from the sample's.
    """
    source, lossy = str(pictures.path), isinstance(pictures, Video)
    wanted = [(index, number) for index, number in enumerate(at) if number is not None]
    numbers = [number for _, number in wanted]
    step = -(-len(numbers) // _SAMPLE)
    sample = [read_mask_picture(picture, lossy) for picture in pictures.read(numbers[::step])]
    known = list_objects(sample, source, kind)
    if known is None:
        _refuse_ids(objects, source)
        first = read_object(sample, source, None, kind)
        one, notes, levels = first.kind, list(first.notes), _levels(sample)
    else:
        one, notes, levels = "ids", [], set()
    del sample
    store, found = MaskStore(len(at)), dict[ObjectId, None]()
    for begin in range(0, len(wanted), _PIECE):
        piece = wanted[begin : begin + _PIECE]
        decoded = [read_mask_picture(picture, lossy) for picture in pictures.read([number for _, number in piece])]
        if known is None:
            _require_alike(decoded, one, levels, source)
            masks = {ONLY: read_object(decoded, source, None, _kind_of(one)).masks}
        else:
            here = list_objects(decoded, source, "ids") or []
            found.update(dict.fromkeys(here))
            named = here if objects is None else [o for o in objects if any(same_id(o, other) for other in here)]
            masks = {o: read_object(decoded, source, o, "ids").masks for o in named}
        for object_id, those in masks.items():
            for (index, _), mask in zip(piece, those, strict=True):
                store.add(object_id, index, mask)
        every(begin + len(piece), len(wanted))
    if known is not None and objects is not None:
        lacking = [o for o in objects if not any(same_id(o, other) for other in found)]
        if lacking:
            raise InputError(f"{source} holds no object {lacking[0]}; `objects` can be {join_ids(found)}.")
    return store, notes


def _refuse_ids(objects: Sequence[ObjectId] | None, source: str) -> None:
    if objects is not None and [str(o) for o in objects] != [str(ONLY)]:
        raise InputError(f"{source} shows a single object without an id; leave out `objects`, or name it {ONLY}.")


def _kind_of(read_as: str) -> MaskKind:
    if read_as == "binary":
        return "binary"
    return "alpha" if read_as == "alpha" else "matte" if read_as == "matte" else "ids"


def _levels(pictures: Sequence[MaskPicture]) -> set[int]:
    """Returns the values besides 0 of pictures in grey; of colours, as they are numbered."""
    levels: set[int] = set()
    for picture in pictures:
        values = picture.values.reshape(-1, *picture.values.shape[2:])
        flat = values if values.ndim == 1 else values.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        levels.update(int(value) for value in np.unique(flat) if value)
    return levels


def _require_alike(pictures: Sequence[MaskPicture], read_as: str, known: set[int], source: str) -> None:
    """Refuses values that a clip read as binary had in none of the sampled pictures: they may be other objects."""
    if read_as != "binary" or any(picture.lossy for picture in pictures):
        return
    if others := sorted(_levels(pictures) - known):
        raise InputError(
            f"{source} shows one object as {join_ranges(sorted(known))}, but has {join_ids(others)} in some "
            'frames; take everything that is not 0 with `mask_kind="binary"`, or values as objects with '
            '`mask_kind="ids"`.'
        )
