"""Computes the GPU memory of a run, phase by phase, before anything is loaded.

Weights and activations come from the engines' records, calls and arrays from the family. No sum includes the CUDA
context (some hundred MB, depending on GPU and driver), which only a GPU can measure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from ..builds.store import EngineRecord
from ..bundle.manifest import Manifest
from ..errors import EngineStaleError, InputError
from ..execution.components import Memory
from ..execution.family import Family
from ..execution.run import Calls, Run

Arena = Literal["shared", "kept", "freed"]


@dataclass(frozen=True)
class Footprint:
    """Device memory of a component in bytes: its weights, and its activations by the engine's profile.

    Attributes:
        arena: where activations lie: in a scratch that all components share, or in an arena of the component's own,
            which is kept between calls or freed after them.
    """

    weights: int
    activations: Mapping[str, int]
    arena: Arena = "shared"


def footprints_of(records: Iterable[EngineRecord]) -> dict[str, Footprint]:
    """Returns the footprints in the engines' records, by component."""
    return {r.key.component: Footprint(r.weights_bytes, r.activation_bytes) for r in records}


@dataclass(frozen=True)
class PhaseMemory:
    """The memory of one phase of a task, in bytes.

    Attributes:
        resident: loaded weights, by component.
        runs: the component that runs at the phase's peak.
        scratch: activations.
        buffers: arrays on the device, by name.
    """

    task: str
    name: str
    resident: dict[str, int]
    runs: str
    scratch: int
    buffers: dict[str, int]

    @property
    def resident_bytes(self) -> int:
        """All loaded weights."""
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
    """The device memory of a run, in bytes.

    Attributes:
        run: with its tasks named, in one variant.
        weights: of each component that the run uses.
        activations: of each component.
        phases: in the order of the run.
        estimated: whether the engines' records are for other shapes.
        own_arenas: whether each component has activations of its own, instead of sharing one scratch.
    """

    memory: Memory
    run: Run
    weights: dict[str, int]
    activations: dict[str, int]
    phases: tuple[PhaseMemory, ...]
    estimated: bool
    own_arenas: bool = False

    @property
    def peak(self) -> PhaseMemory:
        """The phase with the highest peak; the first of equals."""
        return max(self.phases, key=lambda phase: phase.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """The highest peak of all phases."""
        return self.peak.peak_bytes

    @property
    def shared_scratch(self) -> int:
        """Activation memory that all components use in turn; 0 where each brings its own, as in sequential memory."""
        shared = self.memory == "resident" and not self.own_arenas
        return max(phase.scratch for phase in self.phases) if shared else 0

    def fits(self, budget: int | None) -> bool:
        """Returns whether a budget in bytes is enough; None is no limit."""
        return budget is None or self.peak_bytes <= budget

    def as_json(self) -> dict[str, Any]:
        """Returns a JSON-ready form with the sums; `context_bytes`, of the CUDA context, is unknown."""
        return {
            "memory": self.memory,
            **self.run.as_json(),
            "estimated": self.estimated,
            "peak_bytes": self.peak_bytes,
            "weights_bytes": sum(self.weights.values()),
            "context_bytes": None,
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
    """Computes the memory of one run.

    With `resident`, the weights of all components of the run are loaded in every phase, as from the second clip on, and
    all share one scratch as large as the largest need; components with arenas of their own take what is kept, and in
    each phase the largest need of those that free theirs. With `sequential`, a phase takes the weights and activations
    of its largest component.

    Args:
        footprints: of every component that the run uses.
        run: in one variant.

    Raises:
        InputError: the bundle lacks a task, or cannot run with these settings.
        EngineStaleError: a footprint lacks a required profile.
    """
    calls = family.calls(manifest, run)
    weights = {key: footprints[key].weights for key in calls.components}
    activations = _activations(calls, footprints)
    own_arenas = any(footprints[key].arena != "shared" for key in calls.components)
    kept = sum(activations[key] for key in calls.components if footprints[key].arena == "kept")
    phases = []
    for phase in calls.phases:
        if memory == "resident":
            runs = max(phase.components, key=lambda key: activations[key])
            loaded, scratch = weights, max(activations.values())
            if own_arenas:
                freed = (activations[key] for key in phase.components if footprints[key].arena == "freed")
                scratch = kept + max(freed, default=0)
        else:
            runs = max(phase.components, key=lambda key: weights[key] + activations[key])
            loaded, scratch = {runs: weights[runs]}, activations[runs]
        phases.append(PhaseMemory(phase.task, phase.name, loaded, runs, scratch, dict(phase.buffers)))
    return MemoryPlan(memory, calls.run, weights, activations, tuple(phases), calls.estimated, own_arenas)


def parse_bytes(text: str) -> int:
    """Parses `6GB`, `6.5GB`, `800MB` or `6GiB` as bytes (GB = 1e9, GiB = 2**30), or raises InputError."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(i?))?b\s*", text, re.IGNORECASE | re.ASCII)
    power = "kmgt".find(found[2].lower()) + 1 if found and found[2] else 0
    count = int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if count < 1:
        raise InputError(f"{text!r} is no amount of memory; expected a number and its unit, for instance 6GB or 800MB.")
    return count


def _activations(calls: Calls, footprints: Mapping[str, Footprint]) -> dict[str, int]:
    """Returns the most that running each component takes, in bytes; for each shape anew if activations are kept."""
    needs: dict[str, dict[object, int]] = {key: {} for key in calls.components}
    for call in (call for phase in calls.phases for call in phase.calls):
        key, recorded = call.component, footprints[call.component].activations
        if call.profile not in recorded:
            raise EngineStaleError(
                f"the engine of {key} lacks the profile {call.profile} (it has: {', '.join(recorded) or 'none'}); "
                "build it again with `amodal build`."
            )
        shape = (call.profile, tuple(call.axes.items()))
        needs[key][shape] = max(needs[key].get(shape, 0), math.ceil(recorded[call.profile] * call.share))
    return {
        key: sum(each.values()) if footprints[key].arena == "kept" else max(each.values(), default=0)
        for key, each in needs.items()
    }
