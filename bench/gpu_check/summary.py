"""The results of a GPU check, and their summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from statistics import median
from typing import Any, TypeVar

from pydantic import JsonValue

from ..schema import SCHEMA_VERSION, Latency, Machine, Memory, Peers, Record, Results, Roofline
from .steps import StepState

TIME_AIMS = {"onnxruntime": 0.85, "tensorrt_rtx": 0.65, "tensorrt": 0.65}
"""Largest time per clip relative to diffusers in eager FP16, by backend."""

MEMORY_AIM, SHARE_AIM, OUTSIDE_AIM, GAP_AIM = 0.55, 0.60, 0.03, 50e-6
"""Largest peak memory relative to diffusers; smallest share of the matrix-multiply ceiling in the U-Net; largest share
of a clip's time outside the networks; largest gap on the device between two denoising steps, in seconds."""

_M = TypeVar("_M")


class Check(Record):
    """The contents of `gpu_check.json`.

    Attributes:
        created: UTC, ISO 8601. versions: of amodal and the libraries.
        probe: output of `amodal doctor --gpu`; None if it did not run.
        tests: counts and failures by backend: `passed`, `failed`, `skipped`, `failures`, `reasons`.
        steps: their outcomes, without their outputs, which are in `steps/`.
        options: output of `bench/studies/gpu_options.py`, a row per case; None if it did not run.
        arrays, eager: outputs of `arrays.py` and `eager.py`; None if they did not run.
        results: of the benchmarks, by step.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    machine: Machine
    steps: list[StepState]
    probe: JsonValue = None
    tests: dict[str, JsonValue]
    options: JsonValue = None
    arrays: JsonValue = None
    eager: JsonValue = None
    results: dict[str, Results]


def summary_of(check: Check) -> str:
    """Summarises a check in Markdown."""
    from jinja2 import Environment, StrictUndefined

    template = files(__package__).joinpath("summary.md.j2").read_text(encoding="utf-8")
    page = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined).from_string(template)
    tests: dict[str, Any] = check.tests
    text = page.render(
        check=check,
        backends=_backends(check.probe),
        tests=[[name, each["passed"], each["failed"], each["skipped"]] for name, each in tests.items()],
        latency=[_latency(m) for _, m in _measured(check, Latency)],
        peers=[(backend, list(_peers(m, backend))) for backend, m in _measured(check, Peers)],
        memory=[_memory(m) for _, m in _measured(check, Memory)],
        roofline=[row for backend, m in _measured(check, Roofline) for row in _roofline(m, backend)],
        options=list(_options(check.options)),
        arrays=list(_arrays(check.arrays)),
        eager=list(_eager(check.eager)),
        steps=[[s.name, s.state, f"{s.seconds:.0f}", s.trouble] for s in check.steps],
    )
    return text.rstrip() + "\n"


def _measured(check: Check, kind: type[_M]) -> Iterator[tuple[str, _M]]:
    """The measurements of a kind, each with its backend."""
    for step, results in check.results.items():
        yield from ((step.partition(" ")[2], m) for m in results.measurements if isinstance(m, kind))


def _backends(probe: Any) -> list[list[str]]:
    rows = [{**probe["cupy"], "name": "CuPy"}, *probe["backends"]] if isinstance(probe, dict) else []
    return [
        [row["name"], "yes", row.get("detail", "")] if row["executes"] else [row["name"], "no", row["reason"]]
        for row in rows
        if not probe["problem"]
    ]


def _latency(m: Latency) -> list[str]:
    total = median(clip.seconds for clip in m.clips)
    outside = median(clip.outside / clip.seconds for clip in m.clips)
    steps = [s for clip in m.clips for stage in clip.steps.values() for s in stage]
    gaps = [s for clip in m.clips for stage in (clip.gaps or {}).values() for s in stage]
    return [
        m.executed.backend,
        f"{total:.3f}",
        f"{total / m.work.frames:.4f}",
        f"{1000 * median(steps):.1f}" if steps else "-",
        f"{outside:.1%}{_missed(outside, OUTSIDE_AIM)}",
        f"{1e6 * median(gaps):.0f}{_missed(median(gaps), GAP_AIM, 1e6)}" if gaps else "-",
    ]


def _peers(m: Peers, backend: str) -> Iterator[list[str]]:
    eager = next((peer for peer in m.peers if peer.name == "diffusers"), None)
    base = median(eager.seconds) if eager is not None and eager.seconds else None
    base_memory = None if eager is None else eager.device_peak
    for peer in m.peers:
        ours = peer.name.split()[0] in TIME_AIMS
        time = median(peer.seconds) if peer.seconds else None
        yield [
            peer.name,
            "-" if time is None else f"{time:.3f}",
            _ratio(time, base, TIME_AIMS.get(backend) if ours else None),
            f"{peer.device_peak / 1e9:.2f} GB" if peer.device_peak else "-",
            _ratio(peer.device_peak, base_memory, MEMORY_AIM if ours else None),
            ", ".join(f"{name} {value:.3g}" for name, value in peer.agreement.items()) or "-",
        ]


def _memory(m: Memory) -> list[str]:
    own = m.device.get("process") or m.device.get("device")
    peak = max(own.bytes) if own is not None and own.bytes else None
    planned = max(m.planned.values(), default=None)
    beyond = peak - planned if peak is not None and planned is not None else None
    figures = (planned, sum(m.allocators.values()) or None, peak, beyond)
    gigabytes = ("-" if count is None else f"{count / 1e9:.3f} GB" for count in figures)
    return [f"{m.executed.backend}, {m.executed.memory}", *gigabytes]


def _roofline(m: Roofline, backend: str) -> Iterator[list[str]]:
    for cost in m.components:
        share = cost.share_of(m.ceilings)
        if share is not None:
            missed = cost.component.endswith("unet") and share < SHARE_AIM
            yield [backend, cost.component, f"{share:.1%}" + (f" (aim {SHARE_AIM:.0%})" if missed else "")]


def _options(output: Any) -> Iterator[list[str]]:
    for row in output["options"] if isinstance(output, dict) else []:
        if row["error"]:
            yield [row["case"], "-", "-", "-", row["error"], "-"]
            continue
        difference = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        equal = "yes" if row["bit_equal"] else "no"
        memory = f"{row['held_bytes'] / 1e9:.2f} GB"
        yield [row["case"], f"{1000 * median(row['seconds']):.2f}", f"{row['first']:.2f}", equal, difference, memory]


def _arrays(output: Any) -> Iterator[list[str]]:
    for row in output["arrays"] if isinstance(output, dict) else []:
        if "error" in row:
            yield [row["case"], row["error"], "-", "-"]
            continue
        same = "the same bits" if row["equal"] else f"{row['difference']:.1e}{' (no bit may differ)' * row['wanted']}"
        yield [row["case"], same, f"{1000 * row['host']:.1f}", f"{1000 * row['device']:.1f}"]


def _eager(output: Any) -> Iterator[list[str]]:
    if isinstance(output, dict):
        peak = output["peak_bytes"]
        memory = "-" if peak is None else f"{peak / 1e9:.2f} GB"
        yield [f"{1000 * median(output['seconds']):.1f}", memory, "yes" if output["finite"] else "no"]


def _ratio(value: float | None, base: float | None, aim: float | None) -> str:
    return f"{value / base:.3f}{_missed(value / base, aim)}" if value is not None and base else "-"


def _missed(value: float, aim: float | None, unit: float = 1.0) -> str:
    """A remark if the value misses its aim."""
    return f" (aim {aim * unit:g})" if aim is not None and value > aim else ""
