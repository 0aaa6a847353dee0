"""Decides which mask (or depth map) belongs to which frame, from names and counts alone.

Pairs are made by name where names overlap, by order where they say nothing. Names overlap by stem (`00001.jpg` and
`00001.png`) or by the number in them (`00001.jpg` and `mask_1.npy`); whichever matches more frames counts. Where two
readings are possible, both are named and `pair` decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal, Protocol

from ..errors import InputError
from ..paths import displayed, stem_of
from .listing import join_ranges

Pair = Literal["auto", "name", "order"]
Missing = Literal["error", "empty"]
_SHOWN = 5
_NUMBER = re.compile(r"(?<![\d.])[0-9]+\.[0-9]+(?![\d.])|[0-9]+")


class Named(Protocol):
    """Frames, masks or depth maps, of which names and number are known."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def names(self) -> Sequence[str] | None:
        """In order; None where there is only an order."""


class Counted(Named, Protocol):
    """Frames, of which the header of a video may state more than there are."""

    stated: int
    cut: bool  # counting ended where no further frame was wanted


@dataclass(frozen=True)
class Pairing:
    """Per chosen frame, the number of its partner or None, and warnings to show."""

    at: list[int | None]
    notes: list[str]


@dataclass(frozen=True)
class Pairer:
    """Pairs the frames of a clip with one kind of partner.

    Args:
        frames: the frames.
        others: the partners, `what` in messages ("mask" or "depth map").
        chosen: numbers of the frames that are wanted.
        numbered: whether the partners' names are numbers of frames in a video, counted from 0.
    """

    frames: Counted
    others: Named
    chosen: Sequence[int]
    what: str = "mask"
    numbered: bool = False

    def match(self, pair: Pair = "auto", missing: Missing = "error") -> Pairing:
        """Pairs by `name`, by `order`, or as is clear; frames without a partner are an `error` or have an `empty` one.

        Raises:
            InputError: frames without a partner, or two ways to pair them.
        """
        by_order, by_name = self._by_order(), None
        if self.numbered:
            by_name = self._by_number_or_place(pair)
        elif pair != "order":
            by_name = self._by_name() if self.frames.names is not None else self._by_index(by_order, pair, missing)
        if by_name is None:
            if pair == "name":
                raise InputError(
                    f"The names of the frames and of the {self.what}s have no stem or number in common; rename them, "
                    'or take them in order with `pair="order"`.'
                )
            if by_order is None:
                raise self._counts_differ(pair)
            if pair == "auto" and not self.numbered and self._contradict():
                raise self._two_readings(by_order)
            return Pairing(by_order, [])
        lacking = [i for i, at in zip(self.chosen, by_name, strict=True) if at is None]
        if missing == "error":
            if pair == "auto" and by_order is not None and not self.numbered and (lacking or self._misses_any()):
                raise self._two_readings(by_order)
            if lacking:
                raise self._missing(lacking)
        return Pairing(by_name, self._notes(lacking, by_name))

    def _by_order(self) -> list[int | None] | None:
        if self.others.count in (self.frames.count, self.frames.stated):
            return list(self.chosen)
        if self.frames.cut and self.others.count > self.frames.count:
            return list(self.chosen)
        return list(range(len(self.chosen))) if self.others.count == len(self.chosen) else None

    def _by_name(self) -> list[int | None] | None:
        """Returns the partners by name, None if names match nowhere."""
        best = self._best_match()
        return [best[i] for i in self.chosen] if _matched(best) else None

    def _by_index(self, by_order: list[int | None] | None, pair: Pair, missing: Missing) -> list[int | None] | None:
        """Returns the partners by the frame number in their names, for frames without names; None if that fits none.

        Numbers count from 0, or from 1 if there is one for each frame.
        """
        numbers = None if self.others.names is None else _numbers(self.others.names)
        if numbers is None:
            return None
        from_one = sorted(numbers) == list(range(1, self.frames.count + 1))
        place = {number: i for i, number in enumerate(numbers)}
        by_index = [place.get(Fraction(i + from_one)) for i in self.chosen]
        if not _matched(by_index) and not any(number < self.frames.stated for number in numbers):
            return None
        clear = by_order is None or by_order == by_index or pair == "name" or missing == "empty"
        if not clear:
            raise self._two_readings(by_order or [])
        return by_index

    def _misses_any(self) -> bool:
        """Returns whether there are as many partners as frames, but names leave any frame of the whole clip without."""
        return self.others.count == self.frames.count and None in self._best_match()

    def _best_match(self) -> list[int | None]:
        """Returns the partners of all frames by stem or by number, whichever matches more; empty without names."""
        mine, theirs = self.frames.names, self.others.names
        if mine is None or theirs is None:
            return []
        matches = []
        for keys in (_stems, _numbers):
            frames, others = keys(mine), keys(theirs)
            if frames is not None and others is not None:
                place = {key: i for i, key in enumerate(others)}
                matches.append([place.get(key) for key in frames])
        return max(matches, key=_matched, default=[])

    def _by_number_or_place(self, pair: Pair) -> list[int | None]:
        """Reads the partners' numbers as those in the frames' names or as their places, whichever fits more frames.

        Places differ from numbers without being suspicious only where frames are counted from 1.
        """
        place = {int(name): i for i, name in enumerate(self.others.names or ())}
        by_place = [place.get(i) for i in self.chosen]
        numbers = None if self.frames.names is None else _numbers(self.frames.names)
        if numbers is None or pair == "order":
            return by_place
        by_number = [place.get(int(numbers[i])) if numbers[i].denominator == 1 else None for i in self.chosen]
        if by_number == by_place or pair == "name":
            return by_number
        from_one = sorted(numbers) == list(range(1, len(numbers) + 1))
        if _matched(by_number) > _matched(by_place) or (from_one and _matched(by_number) < _matched(by_place)):
            return max(by_number, by_place, key=_matched)
        raise self._two_readings(by_place)

    def _contradict(self) -> bool:
        """Returns whether numbers tell the frames apart and the partners have some too, which match nowhere.

        Two masks of each frame, of two objects, have no number that tells them all apart.
        """
        mine, theirs = self.frames.names, self.others.names
        if mine is None or theirs is None or min(len(mine), len(theirs)) < 2:
            return False
        begun = [
            next((i for i in _longest_first(mine) if stem_of(name).startswith(stem_of(mine[i]))), None)
            for name in theirs
        ]
        if any(i is not None and i != at for at, i in enumerate(begun)):
            return True  # `a_mask` and `b_mask` in another order than `a` and `b`
        return _numbers(mine) is not None and all(_NUMBER.search(stem_of(name)) for name in theirs)

    def _two_readings(self, by_order: list[int | None]) -> InputError:
        mine = self.frames.names or [f"frame {i}" for i in range(self.frames.stated)]
        theirs = self.others.names or ()
        pairs = [(mine[i], theirs[at]) for i, at in zip(self.chosen, by_order, strict=True) if at is not None]
        apart = [f"{a} and {b}" for a, b in pairs if stem_of(a) != stem_of(b)][:_SHOWN]
        more = ", ..." if len(pairs) > len(apart) else ""
        return InputError(
            f"The names of the frames and the {self.what}s contradict their order ({', '.join(apart)}{more}): choose "
            f'`pair="order"` if these belong together, or `pair="name"` if equal names or numbers do'
            + ('; with `missing_masks="empty"` if the object is gone in frames without a mask.' * (self.what == "mask"))
            + ("." * (self.what != "mask"))
        )

    def _missing(self, lacking: list[int]) -> InputError:
        names = self.frames.names
        shown = join_ranges(lacking) if names is None else _first(names[i] for i in lacking)
        remedy = "give one per frame"
        if self.what == "mask":
            remedy += ', or take them as empty with `missing_masks="empty"` if the object is not seen there'
        return InputError(f"{len(lacking)} of {len(self.chosen)} frames have no {self.what} ({shown}); {remedy}.")

    def _counts_differ(self, pair: Pair) -> InputError:
        why = (
            "so that they cannot be taken in order"
            if pair == "order"
            else "and no names that say which belong together"
        )
        return InputError(
            f"There are {self.frames.count} frames but {self.others.count} {self.what}s, {why}; give one per frame."
        )

    def _notes(self, lacking: list[int], pairs: list[int | None]) -> list[str]:
        notes = []
        if lacking:
            names = self.frames.names
            shown = join_ranges(lacking) if names is None else _first(names[i] for i in lacking)
            notes.append(f"{len(lacking)} frames have no {self.what}, the object counts as unseen there: {shown}.")
        unused = self.others.count - _matched(pairs)
        if unused and len(self.chosen) == self.frames.count and not self.numbered:
            notes.append(f"{unused} of {self.others.count} {self.what}s belong to no frame and were left out.")
        return notes


def _stems(names: Sequence[str]) -> list[str] | None:
    """Returns the stems, if they tell the files apart; accents count alike however they are composed."""
    stems = [unicodedata.normalize("NFC", displayed(stem_of(name))) for name in names]
    return stems if len(set(stems)) == len(stems) else None


def _numbers(names: Sequence[str]) -> list[Fraction] | None:
    """Returns the number in each name that tells the files apart: of those that do, the last; None without."""
    found = [_NUMBER.findall(stem_of(name)) for name in names]
    for place in range(1, min(map(len, found), default=0) + 1):
        numbers = [Fraction(groups[-place]) for groups in found]
        if len(set(numbers)) == len(numbers):
            return numbers
    return None


def _longest_first(names: Sequence[str]) -> list[int]:
    return sorted(range(len(names)), key=lambda i: -len(stem_of(names[i])))


def _matched(at: Sequence[int | None]) -> int:
    return len(at) - list(at).count(None)


def _first(names: Iterable[str]) -> str:
    shown = list(islice(names, _SHOWN + 1))
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
