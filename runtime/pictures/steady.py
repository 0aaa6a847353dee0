"""Reads the masks of a long clip picture by picture, in the one way that a sample of its pictures decided.

`objects.read_object` and `objects.list_objects` look at all pictures of a clip; here they look at the sample, and a
picture that might have changed what they found is told (`is_strange`), to be taken into the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colours import Colours, unpack
from .levels import Bools, count_levels
from .objects import MaskKind, MaskPicture, ObjectId, as_rgb, list_objects, palettes_agree, read_object, values_of
from .reading import VOID

_DARK = 16  # levels up to which compressed pictures may be black


class SteadyReading:
    """How the values of masks are read, decided by a sample.

    Args:
        sample: pictures of a clip.
        source: where they are from, which begins every message.
        kind: see `read_object`.

    Attributes:
        kind: binary, matte, alpha, ids or colours.
        has_ids: whether the values are ids of objects; else they show one object without an id.
        notes: warnings to show.

    Raises:
        InputError: values that can be read in two ways, or are no masks.
    """

    def __init__(self, sample: Sequence[MaskPicture], source: str, kind: MaskKind = "auto") -> None:
        self.sample, self._source, self._asked = list(sample), source, kind
        self.has_ids = list_objects(sample, source, kind) is not None
        self.kind, self.notes = "ids", list[str]()
        if not self.has_ids:
            found = read_object(sample, source, None, kind)
            self.kind, self.notes = found.kind, found.notes
        self._lossy = any(picture.lossy for picture in sample)
        chosen = [_alpha_of(picture) for picture in sample] if self.kind == "alpha" else list(sample)
        self._values, self._declared = values_of(chosen, source)
        if isinstance(self._values, Colours) and kind == "auto":
            self._values.weigh()  # finds the main colours of blended edges
        self._levels = set(self._values.levels.objects)
        self._alphas = {int(x) for picture in sample for x in _limits(picture.alpha)}

    @property
    def signature(self) -> tuple[Any, ...]:
        """What must stay the same for masks that were read before to hold."""
        fills = self.kind == "alpha" and len(self._levels) == 1
        return (self.kind, self.has_ids, isinstance(self._values, Colours), self._declared, fills, self._top)

    def with_picture(self, picture: MaskPicture) -> SteadyReading:
        """Returns a reading that is decided by one picture more."""
        return SteadyReading([*self.sample, picture], self._source, self._asked)

    def is_strange(self, picture: MaskPicture) -> bool:
        """Returns whether a picture has values which the sample had not, and which might have decided otherwise."""
        by_values = self.kind != "alpha" and not self._declared and self._asked == "auto"
        if by_values and not self._alphas >= {int(x) for x in _limits(picture.alpha)}:
            return True
        if self.kind == "alpha":
            return len(self._levels) < 2 and not self._levels >= set(self._own_levels(_alpha_of(picture)))
        if isinstance(self._values, Colours):
            if self._values.has_mains:
                return not self._values.fits(as_rgb(picture))
            return not self.has_ids and self._asked == "auto" and not self._knows(picture)
        if picture.values.ndim == 3 or not palettes_agree([*self.sample, picture]):
            return True
        if self.has_ids or self._asked != "auto" or self.kind == "matte":
            return False
        return not self._knows(picture)

    def masks(self, picture: MaskPicture) -> dict[ObjectId | None, Bools]:
        """Returns the masks bool [H, W] of the objects in a picture, by id; of an object without one, under None."""
        if isinstance(self._values, Colours):
            colours = self._values.like([as_rgb(picture)])
            if not self.has_ids:
                return {None: (colours.bright() if self.kind == "matte" else colours.filled())[0]}
            names = {level: "#{:02x}{:02x}{:02x}".format(*unpack(level)) for level in colours.levels.objects}
            return {name: colours.pick(level)[0] for level, name in names.items()}
        values = self._own(_alpha_of(picture) if self.kind == "alpha" else picture)
        if self.has_ids:
            ids = [one for one in count_levels([_whole(values)]).objects if not (self._declared and one == VOID)]
            return {one: values == one for one in ids}
        fractions = self._values.holds_fractions
        if self.kind == "matte" or (self.kind == "alpha" and len(self._levels) != 1):
            return {None: values > self._values.half}
        return {None: np.rint(np.minimum(values, 1) * 255) != 0 if fractions else values != 0}

    @property
    def _top(self) -> int:
        """The level of true pixels where some pictures have one bit and others more."""
        if isinstance(self._values, Colours) or all(one.values.dtype == np.bool_ for one in self.sample):
            return 1
        return max(self._levels, default=1) if any(one.values.dtype == np.bool_ for one in self.sample) else 0

    def _own(self, picture: MaskPicture) -> NDArray[Any]:
        values = picture.values
        return values * np.int64(self._top or max(self._levels, default=1)) if values.dtype == np.bool_ else values

    def _own_levels(self, picture: MaskPicture) -> list[int]:
        return count_levels([_whole(self._own(picture))]).objects

    def _knows(self, picture: MaskPicture) -> bool:
        """Returns whether all levels of a picture are in the sample."""
        if self._lossy and max(self._levels, default=0) > _DARK:
            return True
        if isinstance(self._values, Colours):
            return set(self._values.like([as_rgb(picture)]).levels.objects) <= self._levels
        values = self._own(picture)
        if values.dtype.kind == "f" and not self._values.holds_fractions and (values != np.rint(values)).any():
            return False
        scaled = np.rint(np.minimum(values, 1) * 255) if self._values.holds_fractions else values
        return set(count_levels([_whole(scaled)]).objects) <= self._levels


def _alpha_of(picture: MaskPicture) -> MaskPicture:
    shape = picture.values.shape[:2]
    return MaskPicture(np.full(shape, 255, np.uint8) if picture.alpha is None else picture.alpha)


def _limits(alpha: NDArray[Any] | None) -> tuple[Any, Any]:
    return (255, 255) if alpha is None else (alpha.min(), alpha.max())


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.int64) if values.dtype.kind == "f" else np.ascontiguousarray(values)
