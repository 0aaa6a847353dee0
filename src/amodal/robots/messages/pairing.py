"""Messages of several topics that belong together, by their stamps."""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 8  # messages of a topic that wait for the others


class Pairing:
    """Puts together the messages of all topics whose stamps differ by no more than a tolerance.

    Args:
        topics: 1 or more; the first one's stamps count.
        tolerance: seconds.

    Attributes:
        dropped: messages without partners, by topic.
    """

    def __init__(self, topics: tuple[str, ...], tolerance: float) -> None:
        self._waiting: dict[str, deque[tuple[float, Any]]] = {topic: deque() for topic in topics}
        self._tolerance = tolerance
        self.dropped = dict.fromkeys(topics, 0)

    def add(self, topic: str, stamp: float, message: Any) -> tuple[float, dict[str, Any]] | None:
        """Takes a message; returns the stamp of the first topic's and all messages by topic once they are complete.

        Whatever waited and is older than these is dropped, and counted; so is the oldest of more than 8 of a topic, and
        all that waits when a topic's stamps go backwards.
        """
        queue = self._waiting[topic]
        if queue and stamp < queue[-1][0]:
            self.clear()
        queue.append((stamp, message))
        if len(queue) > _KEPT:
            queue.popleft()
            self.dropped[topic] += 1
        chosen = {name: self._nearest(name, stamp) for name in self._waiting}
        if any(place is None for place in chosen.values()):
            return None
        found = {}
        for name, place in chosen.items():
            waiting = self._waiting[name]
            assert place is not None
            for _ in range(place):
                waiting.popleft()
                self.dropped[name] += 1
            found[name] = waiting.popleft()
        first = next(iter(found.values()))[0]
        return first, {name: message for name, (_, message) in found.items()}

    def clear(self) -> None:
        """Drops what waits, and counts it."""
        for topic, queue in self._waiting.items():
            self.dropped[topic] += len(queue)
            queue.clear()

    def _nearest(self, topic: str, stamp: float) -> int | None:
        near = [(abs(at - stamp), place) for place, (at, _) in enumerate(self._waiting[topic])]
        distance, place = min(near, default=(self._tolerance + 1.0, 0))
        return place if distance <= self._tolerance else None
