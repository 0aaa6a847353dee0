"""Decides what the values of a clip's masks mean, and says what is wrong with those that it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import InputError
from .colours import Colours, unpack
from .levels import Bools, Greys
from .object_ids import ObjectId, list_ids, parse_colour, same_id

MaskKind = Literal["auto", "binary", "matte", "ids", "alpha"]

VOID = 255  # in palettes of VOC and DAVIS: pixels left out, at borders
_REACHED = 0.75  # of the range: a soft mask whose brightest level is below may have been scaled to another


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of one object."""

    masks: Bools  # [T, H, W]
    kind: str  # how the values were read: binary, matte, alpha, ids or colours
    notes: list[str] = field(default_factory=list)  # warnings to show


@dataclass(frozen=True)
class Advice:
    """How a caller decides between readings, in words for messages; `{half}` is half of the range."""

    pick: str = "pick one with `object_id`"
    ids: str = '`mask_kind="ids"`'
    matte: str = '`mask_kind="matte"`'
    binary: str = '`mask_kind="binary"`'
    alpha: str = '`mask_kind="alpha"`'


def advice_on_array(name: str) -> Advice:
    """Returns what a Python caller does with the array of that name: everything ends in bool masks."""
    pick = f"pass the masks of one as bool, such as `{name} == 3`"
    return Advice(pick, f"`{name} == 3`", f"`{name} > {{half}}`", f"`{name} != 0`", "")


class Reading:
    """The values of a clip, greys or colours, and what becomes of them."""

    def __init__(self, values: Greys | Colours, source: str, advice: Advice, declared: bool) -> None:
        self.values, self.source, self.advice = values, source, advice
        self.declared = declared  # the file says that they are ids

    @property
    def ids(self) -> list[ObjectId]:
        """The levels besides the background, as ids."""
        levels = self.values.levels.objects
        if isinstance(self.values, Greys):
            return list(levels)
        return ["#{:02x}{:02x}{:02x}".format(*unpack(level)) for level in levels]

    def read(self, object_id: ObjectId | None, kind: MaskKind) -> ObjectMasks:
        """Returns the masks of the object; see `objects.read_object`."""
        if kind == "binary":
            return ObjectMasks(self.values.filled(), "binary")
        if kind == "matte":
            return ObjectMasks(self.values.bright(), "matte")
        if not self.values.levels.objects:
            return ObjectMasks(self.values.filled(), "binary")
        verdict = "ids" if self.declared or kind == "ids" else self.values.weigh()
        if verdict == "ids" and isinstance(self.values, Greys) and self.values.holds_fractions:
            raise InputError(
                f"{self.source} holds floats in [0, 1] that fill areas at {self._fractions()}: neither one object nor "
                f"a soft mask; give ids as whole numbers, or take what is above 0.5 with {self._matte}."
            )
        if verdict in ("ids", "binary"):
            return self._choose(object_id, verdict)
        if verdict == "matte" and object_id is None:
            return self._soft()
        raise InputError(f"{self.source} {self._refusal(verdict)}")

    @property
    def _matte(self) -> str:
        return self.advice.matte.format(half=getattr(self.values, "half", 128))

    def _fractions(self) -> str:
        return list_ids([f"{level / 255:.3g}" for level in self._levels_of_areas()], 5)

    def _levels_of_areas(self) -> list[int]:
        """Returns the most frequent levels, by rising level."""
        values, counts = self.values.levels
        objects = values[np.argsort(-counts, kind="stable")]
        return sorted([int(level) for level in objects if level != 0][:5])

    def _choose(self, object_id: ObjectId | None, verdict: str) -> ObjectMasks:
        levels, ids = self.values.levels, self.ids
        kind = "colours" if isinstance(self.values, Colours) else verdict
        if object_id is not None:
            for one, level in zip(ids, levels.objects, strict=True):
                if same_id(one, object_id) or (kind == "colours" and parse_colour(object_id) == level):
                    return ObjectMasks(self.values.pick(level), kind, self._notes())
            raise InputError(
                f"{self.source} holds no object {object_id}; `object_id` can be {list_ids(ids)}{self._background()}."
            )
        if len(ids) > 1:
            raise InputError(f"{self.source} holds {len(ids)} {self._several()}; {self.advice.pick}{self._or_all()}.")
        if not levels.has_background and verdict != "binary" and not self.declared:
            raise InputError(
                f"{self.source} holds the single value {ids[0]}, so it does not tell the object from its "
                f"surroundings; expected 0 where the object is not, or {self.advice.binary} to take every pixel."
            )
        if levels.objects[0] < 0:
            raise InputError(
                f"{self.source} holds only 0 and {ids[0]}, and a negative value often means pixels left out; if it is "
                f"the object, {self.advice.pick}."
            )
        return ObjectMasks(self.values.pick(levels.objects[0]), kind, self._notes())

    def _background(self) -> str:
        black = "0" if isinstance(self.values, Greys) else "black"
        return f" ({black} is the background)" if self.values.levels.has_background else ""

    def _several(self) -> str:
        ids = self.ids
        found = f"objects ({list_ids(ids)})"
        if isinstance(self.values, Colours):
            found = f"objects by their colours ({list_ids(ids)})"
        if not self.values.levels.has_background:
            found += " and no background of 0" if isinstance(self.values, Greys) else " and no black background"
        elif self.declared and VOID in ids:
            found += f", of which {VOID} is often not an object but pixels left out"
        elif len(ids) == 2 and isinstance(self.values, Greys) and ids[0] == -1:
            found += ", of which -1 often means pixels left out"
        return found

    def _or_all(self) -> str:
        if self.declared or not self.values.levels.has_background:
            return ""
        return f", or take all together with {self.advice.binary}"

    def _notes(self) -> list[str]:
        notes = []
        share = getattr(self.values, "share", 0.0)
        if share:
            notes.append(
                f"{self.source}: {100 * share:.2g} % of the pixels lie between the main colours, as after JPEG or "
                "antialiasing; each was taken as the nearest main colour around it."
            )
        if self.declared and self.ids == [VOID]:
            notes.append(
                f"{self.source}: the only id is {VOID}, which some data sets use for pixels left out; it was taken as "
                "the object."
            )
        return notes

    def _soft(self) -> ObjectMasks:
        assert isinstance(self.values, Greys)
        top = self.values.levels.objects[-1]
        limit = int(self.values.limit or 1)
        if top < _REACHED * limit:
            last, whole, half = float(top), limit, self.values.half
            if self.values.holds_fractions:
                last, whole = round(top / 255, 3), 1
            raise InputError(
                f"{self.source} looks like a soft mask, but its values end at {last:g} where the type goes to {whole}: "
                f"the object is above {half:g} or, if {last:g} means fully covered, above {last / 2:g}; "
                f"scale the values, or take what is above {half:g} with {self._matte}."
            )
        if not self.values.levels.has_background and int(self.values.levels.values[0]) > limit // 15:
            raise InputError(f"{self.source} {self._refusal('picture')}")
        return ObjectMasks(self.values.bright(), "matte")

    def _refusal(self, verdict: str) -> str:
        if verdict == "matte":
            return (
                "holds a soft mask, whose values are no ids; leave out `object_id`, or take exactly that value with "
                f"{self.advice.ids}."
            )
        if verdict == "picture":
            return (
                "looks like pictures or depth, not like masks: most values lie between those of object and background; "
                f"if it is a very soft mask, take what is above half of the range with {self._matte}."
            )
        if isinstance(self.values, Colours):
            return (
                "holds colours that blend into one another, as after JPEG, so that objects cannot be told apart; write "
                f"flat colours, such as PNG without antialiasing, or take what is not black with {self.advice.binary}."
            )
        return (
            f"can be read in two ways: as ids, because values such as {list_ids(self._levels_of_areas())} fill areas, "
            f"or as a soft mask, because others form ramps at edges; decide with {self.advice.ids} or {self._matte}."
        )
