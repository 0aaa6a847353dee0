"""Parts of a list that machines without a common queue share out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """The part `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `2/8`. Raises ValueError with a sentence."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if found is None:
            raise ValueError(f"{text!r} is not a shard; expected a number and a count such as 2/8.")
        number, count = int(found[1]), int(found[2])
        if not 1 <= number <= count:
            least = f"1/{count} to {count}/{count}" if count else "1/1"
            raise ValueError(f"{text!r} is out of range; shards are counted from 1: expected {least}.")
        return cls(number, count)

    def of(self, items: Sequence[_T]) -> list[_T]:
        """Returns every `count`-th of `items`, from `number` on."""
        return list(items[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
