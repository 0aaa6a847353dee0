"""The same clip by everything that can run it here: the runtime, and the reference pipeline, eager and compiled.

Each peer has its own process and loads once. Clips are run in turns, so that a disturbance of the machine affects all
peers. The first clip, with compilation and loading, is recorded separately. A peer's times count only if its outputs
agree with those of the first peer.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from amodal.runtime.backends import DEFAULT, availability, names, on_gpu
from amodal.runtime.backends.openvino import multiplies_bfloat16
from amodal.runtime.builds.finding import bundle_name
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress, silent

from ..reference.same_clip import INSTALL, comparable_work
from ..running.clips import Execution
from ..running.machine import this_machine
from ..running.sources import Checkpoints
from ..schema import Measurement, Peer, Peers, Skipped, Work
from .loaders import load_diffusers, load_runtime
from .process import LoadedPeer, PeerError, PeerProcess
from .turns import RunningPeer, take_turns

EAGER, COMPILED, BFLOAT16 = "diffusers", "compile", "bfloat16"
_CHECKPOINTS = "amodal bench peers --segment CHECKPOINT --complete CHECKPOINT"
CHOICES = (EAGER, COMPILED, BFLOAT16, *names())
"""Names of peers, in their order; all are compared with the first that runs."""


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
    """Runs the same clip with each peer, in turns.

    Args:
        execution: device, threads, memory and engines; its backend is ignored, because all backends are tried.
        repeats: turns that count, after the first.
        checkpoints: of stages, for torch; not needed for those that the manifest names.
        only: of `CHOICES`; None for all except diffusers in bfloat16, which takes minutes per clip where torch has no
            bfloat16 kernels for a network's shapes.

    Returns:
        One `Peers`, or none if no peer could run; and the skipped or refused peers with the reasons.

    Raises:
        InputError: fewer than one turn, an unknown peer, or the bundle does not have the stage.
        BundleError: there is no bundle.
    """
    unknown = [name for name in only or () if name not in CHOICES]
    if unknown:
        raise InputError(f"peer {', '.join(unknown)} is unknown; expected some of {', '.join(CHOICES)}.", field="only")
    if repeats < 1:
        raise InputError(f"{repeats} turns: expected 1 or more.", field="repeats")
    opened = Bundle(bundle)
    work = comparable_work(opened, work)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amodal-peers-")))
        tried, skipped = candidates(opened, work, execution, checkpoints, folder, only)
        peers: list[RunningPeer] = []
        for place, (name, load) in enumerate(tried.items()):
            progress(f"loading {name}", "", place, len(tried))
            try:
                process = PeerProcess(load, folder / f"{place}.log")
            except PeerError as error:
                skipped.append(_skipped(name, error, opened))
                continue
            stack.callback(process.close)
            peers.append(RunningPeer(name, process))
        refused = take_turns(
            peers, repeats, lambda name, error: skipped.append(_skipped(name, error, opened)), progress
        )
    skipped += [Skipped(what=f"peer {n}", reason=f"its result is different: {why}.") for n, why in refused.items()]
    if not peers:
        return [], skipped
    found = Peers(
        work=work,
        peers=[peer.record() for peer in peers],
        refused=refused,
        device=device_of(execution),
        threads=execution.threads or usable_cores(),
    )
    return [found], skipped


def device_of(execution: Execution) -> str:
    """Returns the device on which peers are compared: the given one, or the GPU if there is one."""
    return execution.device or ("cuda" if this_machine().gpu else "cpu")


def candidates(
    bundle: Bundle,
    work: Work,
    execution: Execution,
    checkpoints: Checkpoints | None,
    folder: Path,
    only: Sequence[str] | None = None,
) -> tuple[dict[str, partial[LoadedPeer]], list[Skipped]]:
    """Returns the loaders of the peers to try on this machine, by name, and the peers that cannot run here."""
    device, path = device_of(execution), str(bundle.path)
    choices = [choice for choice in CHOICES if choice != BFLOAT16] if only is None else only
    found: dict[str, partial[LoadedPeer]] = {}
    skipped: list[Skipped] = []
    for choice, name in ((EAGER, EAGER), (COMPILED, f"{EAGER} + torch.compile"), (BFLOAT16, f"{EAGER} in bfloat16")):
        if choice not in choices:
            continue
        bfloat16, cache = choice == BFLOAT16, folder / f"{choice}-cache"
        if bfloat16 and device != "cpu":
            skipped.append(Skipped(what=f"peer {name}", reason=f"on {device}, {EAGER} is in half precision anyway."))
        elif bfloat16 and not multiplies_bfloat16():
            skipped.append(Skipped(what=f"peer {name}", reason="this CPU does not multiply in bfloat16."))
        else:
            how = (device, execution.threads, choice == COMPILED, cache, bfloat16)
            found[name] = partial(load_diffusers, path, work, checkpoints, *how)
    for name in (name for name in names() if name in choices):
        for one in _own(name, execution, device):
            if isinstance(one, Skipped):
                skipped.append(one)
            else:
                label = f"{name} {one.device}" if name == DEFAULT and one.device != "cpu" else name
                found[label] = partial(load_runtime, path, work, one)
    return found, skipped


def _own(name: str, execution: Execution, device: str) -> Iterator[Execution | Skipped]:
    """The ways to run a backend of the runtime on the device, or why there are none."""
    on_cpu = replace(execution, backend=name, device="cpu", vram=None, engine_dir=None)
    what = f"peer {name}"
    if on_gpu(name) and execution.device == "cpu":
        yield Skipped(what=what, reason="it runs on a GPU.", remedy="amodal bench peers --device cuda")
    elif not on_gpu(name) and device != "cpu":
        reason = f"peers are compared on {device}, this one runs on the CPU."
        yield Skipped(what=what, reason=reason, remedy="amodal bench peers --device cpu")
    elif name != DEFAULT and not (state := availability(name)).usable:
        yield Skipped(what=what, reason=state.reason)
    elif on_gpu(name):
        yield replace(execution, backend=name, threads=None)
    else:
        yield on_cpu
    if name == DEFAULT and execution.device != "cpu":
        yield replace(
            execution, device=device if device != "cpu" else "cuda", backend=name, threads=None, engine_dir=None
        )


def _skipped(name: str, error: PeerError, bundle: Bundle) -> Skipped:
    remedy = {
        "MissingDependencyError": INSTALL,
        "InputError": _CHECKPOINTS,
        "CheckpointError": _CHECKPOINTS,
        "EngineNotFoundError": f"amodal build {bundle_name(bundle)} --backend {name.split()[0]}",
    }
    return Skipped(what=f"peer {name}", reason=str(error), remedy=remedy.get(error.kind, ""))


class TimeRatio(NamedTuple):
    """One peer's time relative to another's: of their medians, and the median, least and most of the turns."""

    of_medians: float
    median: float
    least: float
    most: float


def time_ratio(peer: Peer, base: Peer) -> TimeRatio:
    """Divides the seconds of a peer by those of another, turn by turn, so that what slowed both cancels out."""
    turns = [a / b for a, b in zip(peer.seconds, base.seconds, strict=True)]
    of_medians = statistics.median(peer.seconds) / statistics.median(base.seconds)
    return TimeRatio(of_medians, statistics.median(turns), min(turns), max(turns))


def memory_ratio(peer: Peer, base: Peer) -> float:
    """Divides the peak memory of a peer by that of another: on the GPU if both used one, else on the host."""
    if peer.device_peak and base.device_peak:
        return peer.device_peak / base.device_peak
    return peer.host_peak / base.host_peak
