"""How much fits into a given time: steps of the sampler and objects."""

from __future__ import annotations

from collections.abc import Sequence

_SHARE = 0.9  # of the time that is planned with
_NEW = 0.5  # share of a new measurement in the estimate


class Pace:
    """Estimates what a window costs, from those that were run.

    Args:
        steps: numbers of steps to choose from.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._choices = sorted(set(steps), reverse=True)
        self._seconds: dict[int, float] = {}  # of an object, by steps

    def note(self, seconds: float, objects: int, steps: int) -> None:
        """Takes in a measurement: what made it slower than expected will slow down other numbers of steps too."""
        new, old = seconds / objects, self.seconds(steps)
        if old:
            new = _NEW * new + (1 - _NEW) * old
            self._seconds = {number: value * new / old for number, value in self._seconds.items()}
        self._seconds[steps] = new

    def seconds(self, steps: int) -> float | None:
        """Returns the estimate for an object; None before the first measurement."""
        if steps in self._seconds or not self._seconds:
            return self._seconds.get(steps)
        nearest = min(self._seconds, key=lambda known: abs(known - steps))
        return self._seconds[nearest] * steps / nearest

    def steps(self, objects: int, budget: float | None) -> int:
        """Returns the most steps with which all objects fit, or the fewest; the fewest as long as nothing is known."""
        for number in self._choices:
            one = self.seconds(number)
            if one is not None and budget is not None and one * objects <= _SHARE * budget:
                return number
        return self._choices[-1]

    def room(self, steps: int, budget: float) -> int:
        """Returns how many objects fit; one, to measure it, as long as nothing is known."""
        one = self.seconds(steps)
        if one is None:
            return int(budget > 0)
        return max(int(_SHARE * budget / one), 0) if one > 0 else 1_000_000
