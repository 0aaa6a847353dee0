"""Peers run the same clip in turns. One that fails or whose result differs is left out, and the others continue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from amodal.engines.compare import mask_iou, relative_l2
from amodal.engines.verify import MASK_IOU, RESULTS
from amodal.runtime.bundle.manifest import Precision
from amodal.runtime.progress import Progress

from ..reference.same_clip import Outputs, StageOutput
from ..schema import Peer
from .process import PeerClip, PeerError, PeerProcess

FRAMES: dict[Precision, float] = {"fp32": 0.5, "fp16": 3.0}
"""Largest mean difference of decoded pictures, of 255. The limits of `verify` on latents and masks do not cover the
decoder of `complete`; its errors, such as a shifted frame or other colours, differ by ten and more."""


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
                bad = [stage for stage, output in clip.outputs.items() if not _finite(output)]
                difference = f"latents of {', '.join(bad)} are not finite" if bad else None
                if not bad and base is None:
                    base = (peer, clip.outputs)
                elif not bad and base is not None:
                    agreement = agreement_of(clip.outputs, base[1])
                    peer.agreement = agreement if turn == 0 else peer.agreement
                    difference = disagreement(agreement, peer.process.half + base[0].process.half)
                if difference is None:
                    peer.clips.append(clip._replace(outputs={}))
                    continue
                refused[peer.name] = difference
            peers.remove(peer)
            peer.process.close()
    return refused


def _finite(output: StageOutput) -> bool:
    return all(np.isfinite(latents).all() for latents in output.latents)


def agreement_of(outputs: Outputs, expected: Outputs) -> dict[str, float]:
    """Compares two outputs.

    Returns:
        `STAGE_latents_relative_l2` of the last step, if both have latents; `masks_iou` of all frames together; and
        `STAGE_frames_mean`, the mean absolute difference of decoded pictures, of 255.

    Raises:
        ValueError: shapes differ.
    """
    found: dict[str, float] = {}
    for stage, theirs in expected.items():
        ours = outputs[stage]
        if ours.latents and theirs.latents:
            found[f"{stage}_latents_relative_l2"] = relative_l2(ours.latents[-1], theirs.latents[-1])
        if ours.masks is not None and theirs.masks is not None:
            found["masks_iou"] = mask_iou(ours.masks, theirs.masks)
        found[f"{stage}_frames_mean"] = float(np.abs(ours.frames.astype(np.int16) - theirs.frames).mean())
    return found


def disagreement(agreement: Mapping[str, float], halves: int) -> str | None:
    """Describes the measures of an agreement that exceed their limits; None if there are none.

    Args:
        halves: how many of the two peers round to half precision, weights or arithmetic. With one, the limits are those
            of `amodal.engines.verify` for half precision against float32; with two, twice those.
    """
    precision: Precision = "fp16" if halves else "fp32"
    times = max(1, halves)
    least_iou = 1 - times * (1 - MASK_IOU[precision])
    wrong = []
    for name, value in agreement.items():
        if name == "masks_iou":
            if not value >= least_iou:
                wrong.append(f"masks have an IoU of {value:.4f}, less than {least_iou:.4g}")
            continue
        stage, _, measure = name.partition("_")
        limits = RESULTS if measure.startswith("latents") else FRAMES
        limit = times * limits[precision]
        if not value <= limit:
            what = "last latents differ by" if limits is RESULTS else "pictures differ, of 255, by"
            wrong.append(f"{stage}: {what} {value:.2g}, more than {limit:.2g}")
    return "; ".join(wrong) or None
