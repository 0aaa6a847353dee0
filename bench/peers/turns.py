"""Peers run the same clip in turns. One that fails or whose result differs is left out, and the others continue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from amodal.runtime.progress import Progress

from ..reference.same_clip import Outputs
from ..schema import Peer
from .agreement import agreement_of, disagreement
from .process import PeerClip, PeerError, PeerProcess


@dataclass
class RunningPeer:
    """A peer, its clips so far (without their outputs), and its agreement with the first peer."""

    name: str
    process: PeerProcess
    clips: list[PeerClip] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)

    def record(self) -> Peer:
        """Returns its measurements."""
        first, *rest = self.clips
        return Peer(
            name=self.name,
            description=self.process.description,
            seconds=[clip.seconds for clip in rest],
            first=first.seconds,
            host_peak=max(clip.host_peak for clip in self.clips),
            device_peak=first.device_peak,
            allocator_peak=self.clips[-1].allocator_peak,
            agreement=self.agreement,
        )


class Turns:
    """Runs peers in turns.

    Args:
        failed: called with the name of a peer that failed or died, and the error.

    Attributes:
        peers: those still running; they are compared with the first of them whose clip had a finite result.
        refused: peers whose results differ, and how.
    """

    def __init__(self, peers: list[RunningPeer], failed: Callable[[str, PeerError], None]) -> None:
        self.peers = list(peers)
        self.refused: dict[str, str] = {}
        self._failed = failed
        self._first: RunningPeer | None = None
        self._expected: Outputs = {}

    def run(self, repeats: int, progress: Progress) -> None:
        """Runs one clip of each peer that does not count, with latents; then `repeats` that count."""
        for turn in range(repeats + 1):
            # Another peer begins each time, so that none always follows the same one.
            begin = turn % max(1, len(self.peers))
            for peer in [*self.peers[begin:], *self.peers[:begin]]:
                progress(f"{peer.name}, {f'turn {turn}' if turn else 'first clip'}", "", turn, repeats + 1)
                self._clip(peer, first=turn == 0)

    def _clip(self, peer: RunningPeer, first: bool) -> None:
        try:
            clip = peer.process.clip(trace=first)
        except PeerError as error:
            self._failed(peer.name, error)
        else:
            wrong = self._difference(peer, clip.outputs, first)
            if wrong is None:
                peer.clips.append(clip._replace(outputs={}))
                return
            self.refused[peer.name] = wrong
        self.peers.remove(peer)
        peer.process.close()

    def _difference(self, peer: RunningPeer, outputs: Outputs, first: bool) -> str | None:
        bad = [name for name, output in outputs.items() if not all(np.isfinite(x).all() for x in output.latents)]
        if bad:
            return f"latents of {', '.join(bad)} are not finite"
        if self._first is None:
            self._first, self._expected = peer, outputs
            return None
        agreement = agreement_of(outputs, self._expected)
        if first:
            peer.agreement = agreement
        return disagreement(agreement, peer.process.half + self._first.process.half)
