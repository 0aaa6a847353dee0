"""What GPU memory a run takes, phase by phase, known before anything is loaded.

Weights and activations come from the records that building engines left, calls and arrays from the family. The CUDA
context (some hundred MB, by GPU and driver) is in no sum: nothing but a GPU can tell it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..builds.store import EngineRecord
from ..bundle.manifest import Manifest
from ..errors import EngineStaleError, InputError
from ..execution.components import Memory
from ..execution.family import Family
from ..execution.run import Calls, ComponentCall, Run


@dataclass(frozen=True)
class Footprint:
    """Device memory of a component: its weights, and what running takes, by the engine's profile."""

    weights: int
    activations: Mapping[str, int]


def footprints_of(records: Iterable[EngineRecord]) -> dict[str, Footprint]:
    """What the engines' records say, by component."""
    return {r.key.component: Footprint(r.weights_bytes, r.activation_bytes) for r in records}


@dataclass(frozen=True)
class PhaseMemory:
    """One phase of a task, with the memory that it takes.

    Attributes:
        resident: weights that are loaded, by component, in bytes.
        runs: the component that runs at the phase's peak.
        scratch: activations in bytes.
        buffers: arrays on the device, in bytes.
    """

    task: str
    name: str
    resident: dict[str, int]
    runs: str
    scratch: int
    buffers: dict[str, int]

    @property
    def resident_bytes(self) -> int:
        """All weights that are loaded."""
        return sum(self.resident.values())

    @property
    def buffer_bytes(self) -> int:
        """All arrays."""
        return sum(self.buffers.values())

    @property
    def peak_bytes(self) -> int:
        """Weights, scratch and arrays together."""
        return self.resident_bytes + self.scratch + self.buffer_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes on the device.

    Attributes:
        memory: `resident` or `sequential`.
        run: with its tasks named, in one variant.
        weights: of each component that the run uses, in bytes.
        activations: what running each takes, in bytes.
        phases: in the order of the run.
        estimated: whether the engines' records are of other shapes.
        context_bytes: of the CUDA context; not known without a GPU, and in no sum.
    """

    memory: Memory
    run: Run
    weights: dict[str, int]
    activations: dict[str, int]
    phases: tuple[PhaseMemory, ...]
    estimated: bool
    context_bytes: int | None = None

    @property
    def peak(self) -> PhaseMemory:
        """The phase that takes most; the first of equals."""
        return max(self.phases, key=lambda phase: phase.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most that is taken at any time."""
        return self.peak.peak_bytes

    def fits(self, budget: int | None) -> bool:
        """Whether a budget in bytes is enough; no budget always is."""
        return budget is None or self.peak_bytes <= budget

    def as_json(self) -> dict[str, Any]:
        """Plain form, with the sums."""
        return {
            "memory": self.memory,
            **self.run.as_json(),
            "estimated": self.estimated,
            "peak_bytes": self.peak_bytes,
            "weights_bytes": sum(self.weights.values()),
            "context_bytes": self.context_bytes,
            "components": {
                key: {"weights_bytes": weights, "activation_bytes": self.activations[key]}
                for key, weights in self.weights.items()
            },
            "phases": [
                {
                    "stage": phase.task,
                    "phase": phase.name,
                    "runs": phase.runs,
                    "resident": phase.resident,
                    "scratch_bytes": phase.scratch,
                    "buffers": phase.buffers,
                    "peak_bytes": phase.peak_bytes,
                }
                for phase in self.phases
            ],
        }


def plan_memory(
    family: Family, manifest: Manifest, footprints: Mapping[str, Footprint], run: Run, memory: Memory
) -> MemoryPlan:
    """The memory of one run.

    `resident`: the weights of all components of the run are loaded in every phase, as they are from the second clip
    on; one scratch, as large as the largest needs, is shared by all. `sequential`: only the component that runs, with
    its own activations; of the components of a phase the one that takes most.

    Args:
        footprints: of every component that the run uses.
        run: in one variant.

    Raises:
        InputError: a task that the bundle lacks, or settings that it cannot serve.
        EngineStaleError: a footprint that lacks the profile that is asked for.
    """
    calls = family.calls(manifest, run)
    weights = {key: footprints[key].weights for key in calls.components}
    activations = _activations(calls, footprints)
    phases = []
    for phase in calls.phases:
        if memory == "resident":
            runs = max(phase.components, key=lambda key: activations[key])
            loaded, scratch = weights, max(activations.values())
        else:
            runs = max(phase.components, key=lambda key: weights[key] + activations[key])
            loaded, scratch = {runs: weights[runs]}, activations[runs]
        phases.append(PhaseMemory(phase.task, phase.name, loaded, runs, scratch, dict(phase.buffers)))
    return MemoryPlan(memory, calls.run, weights, activations, tuple(phases), calls.estimated)


def parse_bytes(text: str) -> int:
    """`6GB`, `6.5GB`, `800MB` or `6GiB` in bytes; GB = 1e9, GiB = 2**30.

    Raises:
        InputError: anything else, or nothing.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(i?))?b\s*", text, re.IGNORECASE | re.ASCII)
    power = "kmgt".find(found[2].lower()) + 1 if found and found[2] else 0
    count = int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if count < 1:
        raise InputError(f"{text!r} is no amount of memory; expected a number and its unit, for instance 6GB or 800MB.")
    return count


def _activations(calls: Calls, footprints: Mapping[str, Footprint]) -> dict[str, int]:
    """The most that running each component takes, in bytes."""
    found = dict.fromkeys(calls.components, 0)
    for phase in calls.phases:
        for call in phase.calls:
            found[call.component] = max(found[call.component], _activation(call, footprints[call.component]))
    return found


def _activation(call: ComponentCall, footprint: Footprint) -> int:
    recorded = footprint.activations.get(call.profile)
    if recorded is None:
        has = ", ".join(footprint.activations) or "none"
        raise EngineStaleError(
            f"the engine of {call.component} lacks the profile {call.profile} (it has: {has}); build it again with "
            "`amodal build`."
        )
    return math.ceil(recorded * call.share)
