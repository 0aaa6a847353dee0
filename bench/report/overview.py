"""Contents of the whole report: facts, headline figures, and the sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .. import statistics
from ..schema import Latency, Memory, Results
from ..wording import describe_work, in_bytes, per_frame, percent, plural, seconds
from . import fidelity, latency, memory, peers, quality, roofline, scaling
from .document import Card, Content, Document, Section

_SECTIONS: dict[str, tuple[Callable[[Any], Content], str]] = {
    "latency": (latency.content, "Whole clips after warm-up, from raw arrays to masks and RGB on the host."),
    "memory": (
        memory.content,
        "Resident memory of the process and, on a GPU, memory reported by NVML, sampled during a clip. GB is a billion "
        "bytes.",
    ),
    "fidelity": (fidelity.content, "Compared with a float32 run of the same weights from the same noise."),
    "quality": (
        quality.content,
        "Masks compared with the truth of unseen scenes, strict mode: every frame with hidden parts counts, a miss as "
        "0. mIoU_occ is that of the hidden parts alone.",
    ),
    "peers": (
        peers.content,
        "The same work, inputs and seeds, each in a process of its own, clips in turns; the results were compared with "
        "each other before any time counted.",
    ),
    "roofline": (
        roofline.content,
        "Operations and bytes of a clip, counted from the graphs, and the limits of this machine. A multiply-add is "
        "two operations.",
    ),
    "scaling": (scaling.content, "Time and memory of a clip along one axis, with everything else unchanged."),
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
    # Of the runs with the most stages, the one with the fewest seconds per frame.
    best = min(runs, key=lambda m: (-len(m.work.stages), _median(m) / m.work.frames), default=None)
    context = [f"The first figures are of: {describe_work(best.work)}."] if best else []
    if best and best.work.size == _PAPER_SIZE and best.work.steps == _PAPER_STEPS:
        context.append(_PAPER)
    named = {re.split("[: ]", what)[0] for skipped in results.skipped for what in skipped.what.split(", ")}
    return Document(
        results=results,
        facts=list(_facts(results)),
        cards=list(_cards(found, best)),
        context=context,
        sections=[Section(k, lead, *content(found[k])) for k, (content, lead) in _SECTIONS.items() if found[k]],
        missing=[kind for kind in _SECTIONS if not found[kind] and kind not in named],
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


def _cards(found: dict[str, list[Any]], best: Latency | None) -> Iterator[Card]:
    if best is not None:
        yield "Seconds per frame", per_frame(_median(best), best.work), f"median of clips, {_where(best)}"
        clips = f"{plural(len(best.clips), 'clip')} after warm-up"
        yield "Seconds per clip", seconds(_median(best)), f"{clips}, {_where(best)}"
        if best.cold:
            yield "Cold start", seconds(sum(best.cold.values())), "from import to the end of the first clip, once"
    if found["memory"]:
        least = min(found["memory"], key=lambda m: m.host_peak)
        yield "Peak on the host", in_bytes(least.host_peak), _where(least)
    on_gpu = [(peak, m) for m in found["memory"] if (peak := memory.device_peaks(m).get("process")) is not None]
    if on_gpu:
        peak, m = min(on_gpu, key=lambda pair: pair[0])
        yield "Peak on the GPU", in_bytes(peak), f"of the process, {_where(m)}"
    for m in found["peers"]:
        ratios = [(ratio.value, peer.name) for peer in m.peers if (ratio := peers.ratio_to_first(m, peer))]
        if ratios:
            value, name = min(ratios)
            yield "Time ratio", f"{value:.2f}", f"{name} to {m.peers[0].name}, clip by clip"
    for m in found["quality"]:
        if m.presets:
            top = max(m.presets, key=lambda p: p.miou)
            hidden = f", of hidden parts {percent(top.miou_occ)}" if top.miou_occ is not None else ""
            yield "Best mIoU", percent(top.miou), f"preset {top.name}{hidden}"
    for m in found["roofline"]:
        share = roofline.reached(m)
        if share is not None:
            yield "Share of the ceiling", percent(share, 0), "of this machine's matrix products, by all networks"
