"""Peers running the same clip in turns: those that fall or differ leave, the others go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from amodal.runtime.families.diffusion_vas.config import StageName
from amodal.runtime.progress import Progress

from ..reference.same_clip import StageOutput
from ..schema import Peer
from .agreement import agreement_of, disagreement
from .process import PeerError, PeerProcess, Ran


@dataclass
class Entrant:
    """A peer that runs, its clips so far (without what they drew), and how it agrees with the first."""

    name: str
    process: PeerProcess
    runs: list[Ran] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)

    def record(self) -> Peer:
        """What was measured of it."""
        first, *rest = self.runs
        return Peer(
            name=self.name,
            description=self.process.description,
            seconds=[ran.seconds for ran in rest],
            first=first.seconds,
            host_peak=max(ran.host_peak for ran in self.runs),
            device_peak=first.device_peak,
            allocator_peak=self.runs[-1].allocator_peak,
            agreement=self.agreement,
        )


class Turns:
    """Runs peers in turns.

    Args:
        lost: told of a peer that failed or died.

    Attributes:
        entrants: those that are still in; the others are held against the first of them that drew something.
        refused: those that drew something else, and what.
    """

    def __init__(self, entrants: list[Entrant], lost: Callable[[str, PeerError], None]) -> None:
        self.entrants = list(entrants)
        self.refused: dict[str, str] = {}
        self._lost = lost
        self._first: Entrant | None = None
        self._expected: dict[StageName, StageOutput] = {}

    def run(self, repeats: int, progress: Progress) -> None:
        """One clip each that does not count, with latents; then `repeats` that do."""
        for turn in range(repeats + 1):
            # Another one begins each time, so that nobody always comes after the same.
            begin = turn % max(1, len(self.entrants))
            for entrant in [*self.entrants[begin:], *self.entrants[:begin]]:
                progress(f"{entrant.name}, {f'turn {turn}' if turn else 'first clip'}", "", turn, repeats + 1)
                self._clip(entrant, first=turn == 0)

    def _clip(self, entrant: Entrant, first: bool) -> None:
        try:
            ran = entrant.process.clip(trace=first)
        except PeerError as error:
            self._lost(entrant.name, error)
            self._leave(entrant)
            return
        wrong = self._wrong(entrant, ran, first)
        if wrong is None:
            entrant.runs.append(ran._replace(drawn={}))
        else:
            self.refused[entrant.name] = wrong
            self._leave(entrant)

    def _wrong(self, entrant: Entrant, ran: Ran, first: bool) -> str | None:
        bad = [name for name, drawn in ran.drawn.items() if not all(np.isfinite(x).all() for x in drawn.latents)]
        if bad:
            return f"latents of {', '.join(bad)} are not finite"
        if self._first is None:
            self._first, self._expected = entrant, ran.drawn
            return None
        found = agreement_of(ran.drawn, self._expected)
        if first:
            entrant.agreement = found
        return disagreement(found, entrant.process.half + self._first.process.half)

    def _leave(self, entrant: Entrant) -> None:
        self.entrants.remove(entrant)
        entrant.process.close()
