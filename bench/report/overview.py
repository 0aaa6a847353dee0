"""The report's head: of what, where, when, and the figures that come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..schema import Latency, Results
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
_PAPER_SIZE = (256, 512)
_PAPER = (
    "For context: the paper's authors give 0.95 s/frame at 256x512 in half precision on an RTX 3090, in about 8 GB "
    "(Diffusion-VAS, Chen et al.). That is another machine, so it is no comparison."
)


def document(results: Results) -> Document:
    """A results file as a report; nothing is drawn yet."""
    sections = [make(results.of(kind)) for kind, make in _SECTIONS.items() if results.of(kind)]
    return Document(
        title=f"amodal bench: {results.bundle.name}",
        finished=results.finished,
        facts=_facts(results),
        cards=list(_cards(results)),
        context=list(_context(results)),
        sections=sections,
        skipped=[(s.what, s.reason, s.remedy) for s in results.skipped],
        missing=[kind for kind in _SECTIONS if not results.of(kind)],
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    machine, bundle = results.machine, results.bundle
    facts = [
        ("Bundle", f"{bundle.name}, {' and '.join(bundle.stages)}, {bundle.precision}"),
        ("Clip", f"{plural(bundle.frames, 'frame')} of {bundle.size[0]}x{bundle.size[1]}"),
        ("Manifest", bundle.manifest),
        ("Machine", f"{machine.cpu}, {plural(machine.cores, 'core')}, {in_bytes(machine.memory)}"),
    ]
    if machine.gpu:
        gpu = machine.gpu
        facts.append(
            ("GPU", f"{gpu.name}, {gpu.capability}, {in_bytes(gpu.memory)}, driver {gpu.driver}, CUDA {gpu.cuda}")
        )
    facts += [
        ("System", f"{machine.system}, Python {machine.python}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in results.versions.items()) or "none recorded"),
        ("Measured", results.created),
        ("Machine's fingerprint", machine.fingerprint),
    ]
    return facts


def fastest(results: Results) -> Latency | None:
    """The latency measurement with the fewest seconds per frame, of those with the most stages."""
    runs = [m for m in results.measurements if isinstance(m, Latency) and m.clips]
    return min(runs, key=lambda m: (-len(m.work.stages), _median(m) / m.work.frames), default=None)


def _median(m: Latency) -> float:
    return float(np.median([clip.seconds for clip in m.clips]))


def _cards(results: Results) -> Iterator[Card]:
    best = fastest(results)
    if best is not None:
        who = f"{best.executed.backend} on {best.executed.device}"
        yield Card("Seconds per frame", per_frame(_median(best), best.work), f"median of clips, {who}")
        yield Card(
            "Seconds per clip", seconds(_median(best)), f"{plural(len(best.clips), 'clip')} after warm-up, {who}"
        )
        if best.cold:
            yield Card("Cold start", seconds(sum(best.cold.values())), "from import to the end of the first clip, once")
    yield from _memory_cards(results)
    for m in results.of("peers"):
        ratios = [(peer.name, peers.ratio_to_first(m, peer)) for peer in m.peers]  # type: ignore[union-attr, arg-type]
        found = [(ratio.value, name) for name, ratio in ratios if ratio is not None]
        if found:
            value, name = min(found)
            yield Card("Time ratio", f"{value:.2f}", f"{name} to {m.peers[0].name}, clip by clip")  # type: ignore[union-attr]
    for m in results.of("quality"):
        presets = m.presets  # type: ignore[union-attr]
        if presets:
            top = max(presets, key=lambda p: p.miou)
            hidden = f", of hidden parts {percent(top.miou_occ)}" if top.miou_occ is not None else ""
            yield Card("Best mIoU", percent(top.miou), f"preset {top.name}{hidden}")
    for m in results.of("roofline"):
        share = roofline.reached(m)  # type: ignore[arg-type]
        if share is not None:
            yield Card("Of the ceiling", percent(share, 0), "of this machine's matrix products, all networks together")


def _memory_cards(results: Results) -> Iterator[Card]:
    found: list[Any] = results.of("memory")
    if found:
        least = min(found, key=lambda m: m.host_peak)
        yield Card(
            "Peak on the host", in_bytes(least.host_peak), f"{least.executed.backend} on {least.executed.device}"
        )
    on_gpu = [(memory.device_peaks(m)["process"], m) for m in found if "process" in memory.device_peaks(m)]
    if on_gpu:
        peak, m = min(on_gpu, key=lambda pair: pair[0])
        yield Card("Peak on the GPU", in_bytes(peak), f"of the process, {m.executed.backend} on {m.executed.device}")


def _context(results: Results) -> Iterator[str]:
    best = fastest(results)
    if best is None:
        return
    yield f"The first figures are of: {describe_work(best.work)}."
    if best.work.size == _PAPER_SIZE and best.work.steps == 25:
        yield _PAPER
