"""A GPU check in Markdown: what executes, what passed, how fast, in how much memory, and what did not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ..schema import Latency, Memory, Peer, Peers, Results, Roofline

TIME_AIMS = {"onnxruntime": 0.85, "tensorrt_rtx": 0.65, "tensorrt": 0.65}
"""Most time per clip beside diffusers in eager FP16, by backend."""

MEMORY_AIM, SHARE_AIM, OUTSIDE_AIM, GAP_AIM = 0.55, 0.60, 0.03, 50e-6
"""Most peak memory beside diffusers; least share of the matrix-multiply ceiling in the U-Net; most time outside the
networks, as a share of a clip; most seconds on the device from one denoising step to the next."""


def summary_of(check: Mapping[str, Any], results: Mapping[str, Results]) -> str:
    """The summary.

    Args:
        check: a `Check` as plain data.
        results: its results, by step.
    """
    gpu = check["machine"]["gpu"]
    where = f"{gpu['name']} ({gpu['capability']}, driver {gpu['driver']})" if gpu else "no GPU that NVML knows"
    blocks = [f"# GPU check\n\n{where}, {check['created']}", _probe(check["probe"]), _tests(check["tests"])]
    measured = [(name, m) for name, found in results.items() for m in found.measurements]
    blocks += [
        _latency([(n, m) for n, m in measured if isinstance(m, Latency)]),
        _peers([(n, m) for n, m in measured if isinstance(m, Peers)]),
        _memory([(n, m) for n, m in measured if isinstance(m, Memory)]),
        _roofline([(n, m) for n, m in measured if isinstance(m, Roofline)]),
        _options(check["options"]),
        _steps(check["steps"]),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _probe(found: Any) -> str:
    if not isinstance(found, dict):
        return "## Backends\n\nNot looked at."
    if found["problem"]:
        return f"## Backends\n\n{found['problem']}"
    rows = [
        [row["name"], "yes" if row["executes"] else "no", row.get("detail", "") if row["executes"] else row["reason"]]
        for row in [{**found["cupy"], "name": "CuPy"}, *found["backends"]]
    ]
    return "## Backends\n\n" + _table(["backend", "executes", "what, or why not"], rows)


def _tests(outcomes: Mapping[str, Any]) -> str:
    if not outcomes:
        return ""
    rows = [[name, *(str(said[key]) for key in ("passed", "failed", "skipped"))] for name, said in outcomes.items()]
    failures = [
        f"- {name}: `{test}`: {why}" for name, said in outcomes.items() for test, why in said["failures"].items()
    ]
    lines = ["## Tests marked gpu", "", _table(["backend", "passed", "failed", "skipped"], rows)]
    return "\n".join([*lines, *([""] if failures else []), *failures])


def _latency(found: Sequence[tuple[str, Latency]]) -> str:
    rows = []
    for _, m in found:
        total = median(clip.seconds for clip in m.clips)
        beside = median(clip.outside / clip.seconds for clip in m.clips)
        steps = [s for clip in m.clips for stage in clip.steps.values() for s in stage]
        gaps = [s for clip in m.clips for stage in (clip.gaps or {}).values() for s in stage]
        rows.append(
            [
                m.executed.backend,
                f"{total:.3f}",
                f"{total / m.work.frames:.4f}",
                f"{1000 * median(steps):.1f}" if steps else "-",
                f"{beside:.1%}{_verdict(beside, OUTSIDE_AIM)}",
                f"{1e6 * median(gaps):.0f}{_verdict(median(gaps), GAP_AIM, 1e6)}" if gaps else "-",
            ]
        )
    head = ["backend", "s per clip", "s per frame", "ms per step", "outside the networks", "µs between steps"]
    return "## Time (medians)\n\n" + _table(head, rows) if rows else ""


def _peers(found: Sequence[tuple[str, Peers]]) -> str:
    blocks = []
    for step, m in found:
        backend = step.removeprefix("peers ")
        eager = next((p for p in m.peers if p.name == "diffusers"), None)
        rows = [_peer(p, eager, backend) for p in m.peers]
        head = ["peer", "s per clip", "beside eager", "peak on the GPU", "beside eager", "agreement"]
        blocks.append(f"## Peers, with {backend}\n\n" + _table(head, rows))
    return "\n\n".join(blocks)


def _peer(peer: Peer, eager: Peer | None, backend: str) -> list[str]:
    time = median(peer.seconds) if peer.seconds else None
    ours = peer.name.split()[0] in TIME_AIMS
    base = median(eager.seconds) if eager is not None and eager.seconds else None
    ratio = time / base if time is not None and base else None
    memory = peer.device_peak / eager.device_peak if peer.device_peak and eager and eager.device_peak else None
    return [
        peer.name,
        "-" if time is None else f"{time:.3f}",
        _ratio(ratio, TIME_AIMS.get(backend) if ours else None),
        f"{peer.device_peak / 1e9:.2f} GB" if peer.device_peak else "-",
        _ratio(memory, MEMORY_AIM if ours else None),
        ", ".join(f"{name} {value:.3g}" for name, value in peer.agreement.items()) or "-",
    ]


def _memory(found: Sequence[tuple[str, Memory]]) -> str:
    rows = []
    for _, m in found:
        own = m.device.get("process") or m.device.get("device")
        peak = max(own.bytes) if own is not None and own.bytes else None
        counted = sum(m.allocators.values()) or None
        planned = max(m.planned.values()) if m.planned else None
        beyond = peak - planned if peak is not None and planned is not None else None
        rows.append(
            [
                f"{m.executed.backend}, {m.executed.memory}",
                _gigabytes(planned),
                _gigabytes(counted),
                _gigabytes(peak),
                _gigabytes(beyond),
            ]
        )
    head = ["backend", "planned", "CuPy's pool", "NVML's peak, context and all", "beyond the plan"]
    return "## Memory on the GPU\n\n" + _table(head, rows) if rows else ""


def _roofline(found: Sequence[tuple[str, Roofline]]) -> str:
    rows = []
    for step, m in found:
        for cost in m.components:
            share = cost.share_of(m.ceilings)
            if share is not None:
                aim = "" if not cost.component.endswith("unet") or share >= SHARE_AIM else f" (aim {SHARE_AIM:.0%})"
                rows.append([step.removeprefix("roofline "), cost.component, f"{share:.1%}{aim}"])
    return (
        "## Share of the measured matrix-multiply ceiling\n\n" + _table(["backend", "component", "share"], rows)
        if rows
        else ""
    )


def _options(said: Any) -> str:
    if not isinstance(said, dict):
        return ""
    rows = []
    for row in said["options"]:
        if row["error"]:
            rows.append([row["case"], "-", "-", "-", row["error"]])
            continue
        difference = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        equal = "yes" if row["bit_equal"] else "no"
        rows.append([row["case"], f"{1000 * median(row['seconds']):.2f}", f"{row['first']:.2f}", equal, difference])
    head = ["case", "ms per step", "s, first call", "two calls bit-equal", "difference"]
    return "## The U-Net's step, options of ONNX Runtime\n\n" + _table(head, rows)


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [[s["name"], s["state"], f"{s['seconds']:.0f}", s["trouble"] or ""] for s in steps]
    return "## Steps\n\n" + _table(["step", "state", "s", "trouble"], rows) if rows else ""


def _ratio(value: float | None, aim: float | None) -> str:
    return "-" if value is None else f"{value:.3f}{_verdict(value, aim)}"


def _verdict(value: float, aim: float | None, unit: float = 1.0) -> str:
    """Only what was missed is marked."""
    return f" (aim {aim * unit:g})" if aim is not None and value > aim else ""


def _gigabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e9:.3f} GB"
