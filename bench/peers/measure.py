"""The same clip by everything that can draw it here: the reference pipeline on diffusers, eager and compiled, and ours.

Each peer has a process of its own and loads once; clips are run in turns, so that whatever else the machine does takes
all of them along. The first clip, with compilation and loading, is kept apart. What each draws is held against the
first peer before any of its times counts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from amodal.runtime.backends import DEFAULT, availability, names, on_gpu
from amodal.runtime.backends.openvino import multiplies_bfloat16
from amodal.runtime.builds.finding import bundle_name
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress, silent

from ..reference.same_clip import INSTALL, given_work
from ..running.clips import Execution
from ..running.machine import this_machine
from ..running.sources import Checkpoints
from ..schema import Measurement, Peer, Peers, Skipped, Work
from .loaders import load_diffusers, load_ours
from .process import LoadedPeer, PeerError, PeerProcess
from .turns import Entrant, Turns

EAGER, COMPILED, ROUNDED = "diffusers", "compile", "bfloat16"
_CHECKPOINTS = "amodal bench peers --segment CHECKPOINT --complete CHECKPOINT"
CHOICES = (EAGER, COMPILED, ROUNDED, *names())
"""What can be asked for; the first that runs is what the others are held against."""


class Candidate(NamedTuple):
    """A peer that is to be tried: its name, and how its process loads it."""

    name: str
    load: Callable[..., LoadedPeer]
    args: tuple[Any, ...]


def measure_peers(
    bundle: str | Path,
    work: Work,
    execution: Execution,
    *,
    repeats: int = 5,
    checkpoints: Checkpoints | None = None,
    only: Sequence[str] | None = None,
    progress: Progress = silent,
) -> tuple[list[Measurement], list[Skipped]]:
    """Runs the same clip by each peer, in turns.

    Args:
        execution: device, threads, memory and engines; its backend does not matter, all of them are tried.
        repeats: turns that count, after the first.
        checkpoints: of stages, for torch; those that the manifest names are found without.
        only: of `CHOICES`; None for all but diffusers in bfloat16, which takes minutes a clip where torch has no such
            kernels for a network's shapes.

    Returns:
        One `Peers`, or none if no peer could run; and the peers that were skipped or refused, and why.

    Raises:
        InputError: fewer than one turn, an unknown peer, or a stage that the bundle does not have.
        BundleError: there is no bundle.
    """
    unknown = [name for name in only or () if name not in CHOICES]
    if unknown:
        raise InputError(f"peer {', '.join(unknown)} is unknown; expected some of {', '.join(CHOICES)}.", field="only")
    if repeats < 1:
        raise InputError(f"{repeats} turns: expected 1 or more.", field="repeats")
    opened = Bundle(bundle)
    work = given_work(opened, work)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amodal-peers-")))
        asked, skipped = candidates(opened, work, execution, checkpoints, folder, only)
        entrants: list[Entrant] = []
        for place, candidate in enumerate(asked):
            progress(f"loading {candidate.name}", "", place, len(asked))
            try:
                process = PeerProcess(candidate.load, candidate.args, folder / f"{place}.log")
            except PeerError as error:
                skipped.append(_skipped(candidate.name, error, opened))
                continue
            stack.callback(process.close)
            entrants.append(Entrant(candidate.name, process))
        turns = Turns(entrants, lambda name, error: skipped.append(_skipped(name, error, opened)))
        turns.run(repeats, progress)
    refused = turns.refused
    skipped += [Skipped(what=f"peer {name}", reason=f"its result is another: {why}.") for name, why in refused.items()]
    if not turns.entrants:
        return [], skipped
    found = Peers(
        work=work,
        peers=[entrant.record() for entrant in turns.entrants],
        refused=refused,
        device=device_of(execution),
        threads=execution.threads or usable_cores(),
    )
    return [found], skipped


def device_of(execution: Execution) -> str:
    """Where peers are compared: on the GPU if there is one, unless a device is named."""
    return execution.device or ("cuda" if this_machine().gpu else "cpu")


def candidates(
    bundle: Bundle,
    work: Work,
    execution: Execution,
    checkpoints: Checkpoints | None,
    folder: Path,
    only: Sequence[str] | None = None,
) -> tuple[list[Candidate], list[Skipped]]:
    """Peers to try on this machine, and those that are not."""
    device = device_of(execution)
    place = str(bundle.path)
    found: list[Candidate] = []
    skipped: list[Skipped] = []

    def add(choice: str, candidate: Candidate | Skipped) -> None:
        if only is None or choice in only:
            (found if isinstance(candidate, Candidate) else skipped).append(candidate)  # type: ignore[arg-type]

    for choice, name in ((EAGER, EAGER), (COMPILED, f"{EAGER} + torch.compile"), (ROUNDED, f"{EAGER} in bfloat16")):
        cache = folder / f"{choice}-cache"
        args = (place, work, checkpoints, device, execution.threads, choice == COMPILED, cache, choice == ROUNDED)
        candidate: Candidate | Skipped = Candidate(name, load_diffusers, args)
        if choice == ROUNDED and only is None:
            continue
        if choice == ROUNDED and device != "cpu":
            candidate = Skipped(what=f"peer {name}", reason=f"on {device}, {EAGER} is in half precision anyway.")
        elif choice == ROUNDED and not multiplies_bfloat16():
            candidate = Skipped(what=f"peer {name}", reason="this CPU does not multiply in it.")
        add(choice, candidate)
    own = replace(execution, backend=DEFAULT, vram=None, engine_dir=None)
    if device == "cpu":
        add(DEFAULT, Candidate(DEFAULT, load_ours, (place, work, replace(own, device="cpu"))))
    else:
        reason = f"peers are compared on {device}, this one runs on the CPU."
        add(DEFAULT, Skipped(what=f"peer {DEFAULT}", reason=reason, remedy="amodal bench peers --device cpu"))
    if execution.device != "cpu":
        where = device if device != "cpu" else "cuda"
        there = replace(own, device=where, threads=None, vram=execution.vram)
        add(DEFAULT, Candidate(f"{DEFAULT} {there.device}", load_ours, (place, work, there)))
    for name in names():
        if name == DEFAULT:
            continue
        state = availability(name)
        if execution.device == "cpu" and on_gpu(name):
            add(
                name,
                Skipped(what=f"peer {name}", reason="it runs on a GPU.", remedy="amodal bench peers --device cuda"),
            )
        elif not on_gpu(name) and device != "cpu":
            reason = f"peers are compared on {device}, this one runs on the CPU."
            add(name, Skipped(what=f"peer {name}", reason=reason, remedy="amodal bench peers --device cpu"))
        elif not state.usable:
            add(name, Skipped(what=f"peer {name}", reason=state.reason))
        elif not on_gpu(name):
            add(name, Candidate(name, load_ours, (place, work, replace(own, backend=name, device="cpu"))))
        else:
            engines = replace(execution, backend=name, threads=None)
            add(name, Candidate(f"{name}", load_ours, (place, work, engines)))
    return found, skipped


def _skipped(name: str, error: PeerError, bundle: Bundle) -> Skipped:
    remedy = {
        "MissingDependencyError": INSTALL,
        "InputError": _CHECKPOINTS,
        "CheckpointError": _CHECKPOINTS,
        "EngineNotFoundError": f"amodal build {bundle_name(bundle)} --backend {name.split()[0]}",
    }
    return Skipped(what=f"peer {name}", reason=str(error), remedy=remedy.get(error.kind, ""))


class Ratio(NamedTuple):
    """One peer's time in another's: of their medians, and the median, least and most of the turns."""

    of_medians: float
    median: float
    least: float
    most: float


def time_ratio(peers: Peers, name: str, base: str) -> Ratio:
    """Seconds of `name` over those of `base`, turn by turn, so that what slowed both does not show.

    Raises:
        InputError: no such peer.
    """
    ours, theirs = peer_of(peers, name).seconds, peer_of(peers, base).seconds
    turns = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ours) / statistics.median(theirs), statistics.median(turns), min(turns), max(turns))


def memory_ratio(peers: Peers, name: str, base: str) -> float:
    """Peak of `name` over that of `base`: on the GPU where both have used one, and of the processes elsewhere.

    Raises:
        InputError: no such peer.
    """
    ours, theirs = peer_of(peers, name), peer_of(peers, base)
    if ours.device_peak and theirs.device_peak:
        return ours.device_peak / theirs.device_peak
    return ours.host_peak / theirs.host_peak


def peer_of(peers: Peers, name: str) -> Peer:
    """A peer by its name.

    Raises:
        InputError: there is none.
    """
    for peer in peers.peers:
        if peer.name == name:
            return peer
    there = ", ".join(peer.name for peer in peers.peers)
    raise InputError(f"no peer {name!r} was measured; these were: {there}.")
