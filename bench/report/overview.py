"""Contents of the whole report: facts, headline figures, and the sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import statistics
from ..schema import Latency, Memory, Results
from ..wording import describe_work, in_bytes, per_frame, percent, plural, seconds
from . import fidelity, latency, memory, peers, quality, roofline, scaling
from .document import Card, Document, Section

_SECTIONS: dict[str, Callable[[Any], Section]] = {
    "latency": latency.section,
    "memory": memory.section,
    "fidelity": fidelity.section,
    "quality": quality.section,
    "peers": peers.section,
    "roofline": roofline.section,
    "scaling": scaling.section,
}
_PAPER_SIZE, _PAPER_STEPS = (256, 512), 25
_PAPER = (
    "For context: the paper's authors report 0.95 s/frame at 256x512 in half precision on an RTX 3090, in about 8 GB "
    "(Diffusion-VAS, Chen et al.). That is another machine, so it is no comparison."
)


def document(results: Results) -> Document:
    """The contents of the report; plots are drawn later."""
    found: dict[str, list[Any]] = {kind: [m for m in results.measurements if m.kind == kind] for kind in _SECTIONS}
    runs: list[Latency] = [m for m in found["latency"] if m.clips]
    best = min(runs, key=lambda m: (-len(m.work.stages), _median(m) / m.work.frames), default=None)
    context = [f"The first figures are of: {describe_work(best.work)}."] if best else []
    if best and best.work.size == _PAPER_SIZE and best.work.steps == _PAPER_STEPS:
        context.append(_PAPER)
    return Document(
        results=results,
        facts=list(_facts(results)),
        cards=[*_latency_cards(best), *_memory_cards(found["memory"]), *_other_cards(found)],
        context=context,
        sections=[make(found[kind]) for kind, make in _SECTIONS.items() if found[kind]],
        missing=[kind for kind in _SECTIONS if not found[kind]],
    )


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    machine, bundle, gpu = results.machine, results.bundle, results.machine.gpu
    yield "Bundle", f"{bundle.name}, {' and '.join(bundle.stages)}, {bundle.precision}"
    yield "Clip", f"{plural(bundle.frames, 'frame')} of {bundle.size[0]}x{bundle.size[1]}"
    yield "Manifest", bundle.manifest
    yield "Machine", f"{machine.cpu}, {plural(machine.cores, 'core')}, {in_bytes(machine.memory)}"
    if gpu:
        yield "GPU", f"{gpu.name}, {gpu.capability}, {in_bytes(gpu.memory)}, driver {gpu.driver}, CUDA {gpu.cuda}"
    yield "System", f"{machine.system}, Python {machine.python}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in results.versions.items()) or "none recorded"
    yield "Measured", results.created
    yield "Machine's fingerprint", machine.fingerprint


def _median(m: Latency) -> float:
    return statistics.median_of(m.seconds) or 0.0


def _where(m: Latency | Memory) -> str:
    return f"{m.executed.backend} on {m.executed.device}"


def _latency_cards(best: Latency | None) -> Iterator[Card]:
    """Cards of the run with the fewest seconds per frame, among those with the most stages."""
    if best is None:
        return
    yield Card("Seconds per frame", per_frame(_median(best), best.work), f"median of clips, {_where(best)}")
    clips = f"{plural(len(best.clips), 'clip')} after warm-up"
    yield Card("Seconds per clip", seconds(_median(best)), f"{clips}, {_where(best)}")
    if best.cold:
        yield Card("Cold start", seconds(sum(best.cold.values())), "from import to the end of the first clip, once")


def _memory_cards(found: list[Memory]) -> Iterator[Card]:
    if found:
        least = min(found, key=lambda m: m.host_peak)
        yield Card("Peak on the host", in_bytes(least.host_peak), _where(least))
    on_gpu = [(memory.device_peaks(m)["process"], m) for m in found if "process" in memory.device_peaks(m)]
    if on_gpu:
        peak, m = min(on_gpu, key=lambda pair: pair[0])
        yield Card("Peak on the GPU", in_bytes(peak), f"of the process, {_where(m)}")


def _other_cards(found: dict[str, list[Any]]) -> Iterator[Card]:
    for m in found["peers"]:
        ratios = [(ratio.value, peer.name) for peer in m.peers if (ratio := peers.ratio_to_first(m, peer))]
        if ratios:
            value, name = min(ratios)
            yield Card("Time ratio", f"{value:.2f}", f"{name} to {m.peers[0].name}, clip by clip")
    for m in found["quality"]:
        if m.presets:
            top = max(m.presets, key=lambda p: p.miou)
            hidden = f", of hidden parts {percent(top.miou_occ)}" if top.miou_occ is not None else ""
            yield Card("Best mIoU", percent(top.miou), f"preset {top.name}{hidden}")
    for m in found["roofline"]:
        share = roofline.reached(m)
        if share is not None:
            yield Card("Share of the ceiling", percent(share, 0), "of this machine's matrix products, by all networks")
