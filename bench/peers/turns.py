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


def take_turns(
    peers: list[RunningPeer], repeats: int, failed: Callable[[str, PeerError], None], progress: Progress
) -> dict[str, str]:
    """Runs one clip of each peer that does not count, with latents; then `repeats` that count, in turns.

    Args:
        peers: those that fail or are refused are removed; the others are compared with the first finite result.
        failed: called with the name of a peer that failed or died, and the error.

    Returns:
        The refused peers: how the result of each differs.
    """
    refused: dict[str, str] = {}
    base: tuple[RunningPeer, Outputs] | None = None
    for turn in range(repeats + 1):
        # Another peer begins each time, so that none always follows the same one.
        begin = turn % max(1, len(peers))
        for peer in [*peers[begin:], *peers[:begin]]:
            progress(f"{peer.name}, {f'turn {turn}' if turn else 'first clip'}", "", turn, repeats + 1)
            try:
                clip = peer.process.clip(trace=turn == 0)
            except PeerError as error:
                failed(peer.name, error)
            else:
                difference = _not_finite(clip.outputs)
                if difference is None:
                    base = base or (peer, clip.outputs)
                    difference = _compared(peer, clip.outputs, *base, first=turn == 0)
                if difference is None:
                    peer.clips.append(clip._replace(outputs={}))
                    continue
                refused[peer.name] = difference
            peers.remove(peer)
            peer.process.close()
    return refused


def _not_finite(outputs: Outputs) -> str | None:
    bad = [name for name, output in outputs.items() if not all(np.isfinite(x).all() for x in output.latents)]
    return f"latents of {', '.join(bad)} are not finite" if bad else None


def _compared(peer: RunningPeer, outputs: Outputs, base: RunningPeer, expected: Outputs, first: bool) -> str | None:
    if outputs is expected:
        return None
    agreement = agreement_of(outputs, expected)
    if first:
        peer.agreement = agreement
    return disagreement(agreement, peer.process.half + base.process.half)
