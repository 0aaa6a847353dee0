"""Compares two results files, taking noise into account.

Only equal measurements are compared: the same kind, settings, backend, device, memory mode and options. Everything else
is listed, never averaged away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amodal.runtime.errors import InputError

from .. import statistics
from ..schema import Fidelity, Peers, Quality, Record, Results
from ..wording import describe_executed, describe_work
from .changes import Change
from .comparers import changes_of

_VERSIONS = {"cuda_driver", "cuda_runtime", "version"}
"""Options that name software; measurements of different versions are compared all the same."""


class Compared(Record):
    """One measurement that both files have, with `work` and `executed` in words, or empty if the kind has none.

    `left_out` lists figures that only one of the two has, or whose settings differ.
    """

    kind: str
    work: str
    executed: str
    changes: list[Change]
    left_out: list[str]


class Comparison(Record):
    """The comparison of two results files.

    Attributes:
        same_machine, same_bundle: by fingerprint, and by the manifest's hash.
        floor: what two equal runs may differ by; see `statistics.compare`.
        notes: what a reader must know before trusting the figures.
        unmatched: measurements without a counterpart, and how they differ from the closest one.
    """

    same_machine: bool
    same_bundle: bool
    floor: float
    notes: list[str]
    compared: list[Compared]
    unmatched: list[str]

    def failures(self, limit: float) -> list[tuple[Compared, Change]]:
        """Changes for the worse by more than `limit`, a share, and beyond noise."""
        return [(m, change) for m in self.compared for change in m.changes if change.fails(limit)]


def compare_results(
    before: Results, after: Results, *, floor: float = statistics.FLOOR, across_machines: bool = False
) -> Comparison:
    """Compares two results files.

    Args:
        floor: share by which the medians of two equal runs may differ.
        across_machines: compare even if the machines differ.

    Raises:
        InputError: the machines differ and `across_machines` is False, or no measurement is in both files.
    """
    same_machine = before.machine.fingerprint == after.machine.fingerprint
    if not same_machine and not across_machines:
        raise InputError(
            f"The results are of two machines ({_machine(before)}; {_machine(after)}), so a difference says nothing "
            "about the code; measure both on one, or compare them anyway with `across_machines=True`."
        )
    pairs, unmatched = _match(before, after)
    if not pairs:
        why = f": {unmatched[0]}" if unmatched else "; both are empty"
        raise InputError(f"The two results have no measurement in common{why}. Measure both with the same settings.")
    return Comparison(
        same_machine=same_machine,
        same_bundle=before.bundle.manifest == after.bundle.manifest,
        floor=floor,
        notes=[*_notes(before, after, same_machine), *(note for pair in pairs for note in _unrecorded(*pair))],
        compared=[_compare(a, b, floor) for a, b in pairs],
        unmatched=unmatched,
    )


def _machine(results: Results) -> str:
    machine = results.machine
    gpu = f", {machine.gpu.name}" if machine.gpu else ""
    return f"{machine.cpu}, {machine.cores} cores, {machine.memory / 1e9:.0f} GB{gpu}"


def _notes(before: Results, after: Results, same_machine: bool) -> Iterator[str]:
    if not same_machine:
        yield f"Two machines: {_machine(before)}; {_machine(after)}. A difference says nothing about the code alone."
    if before.bundle.manifest != after.bundle.manifest:
        old, new = (f"{r.bundle.name} ({r.bundle.manifest[:12]})" for r in (before, after))
        yield f"Two bundles: {old} and {new}, whose weights or graphs differ."
    named = {"before": before, "after": after}
    for name, results in named.items():
        if not results.finished:
            yield f"The suite of `{name}` was interrupted; later measurements are missing."
    mine, its = _versions(before), _versions(after)
    names = [name for name in sorted({*mine, *its}) if mine.get(name) != its.get(name)]
    if names:
        differing = (f"{name} {mine.get(name, 'absent')} -> {its.get(name, 'absent')}" for name in names)
        yield f"Other versions: {', '.join(differing)}."
    for name, results in named.items():
        for m in results.measurements:
            yield from (f"{name.capitalize()}, {m.kind}: {warning}" for warning in getattr(m, "warnings", []))


def _versions(results: Results) -> dict[str, str]:
    machine = results.machine
    gpu = {"driver": machine.gpu.driver, "CUDA": machine.gpu.cuda} if machine.gpu else {}
    return {**results.versions, "python": machine.python, "system": machine.system, **gpu}


def _identity(measurement: Any) -> dict[str, Any]:
    """What must be equal for two measurements to be compared; None where an older file does not record it."""
    found: dict[str, Any] = {"kind": measurement.kind}
    work, executed = getattr(measurement, "work", None), getattr(measurement, "executed", None)
    if work is not None:
        found |= work.model_dump()
    if executed is not None:
        found |= {"backend": executed.backend, "device": executed.device, "memory": executed.memory}
        found |= {name: value for name, value in executed.options.items() if name not in _VERSIONS}
    if isinstance(measurement, Fidelity):
        found["reference"] = measurement.compared_with
    if isinstance(measurement, Quality):
        found |= {"scenes": measurement.scenes, "workers": measurement.workers}
    if isinstance(measurement, Peers):
        found |= {"device": measurement.device, "threads": measurement.threads}
    return found


def _differences(a: Any, b: Any) -> list[str]:
    """How two identities differ; None, of an older file, equals everything."""
    mine, its = _identity(a), _identity(b)
    pairs = {name: (mine.get(name, "absent"), its.get(name, "absent")) for name in {**mine, **its}}
    return [f"{name} {x} against {y}" for name, (x, y) in pairs.items() if x != y and None not in (x, y)]


def _unrecorded(a: Any, b: Any) -> Iterator[str]:
    mine, its = _identity(a), _identity(b)
    for name, older, newer in (("before", mine, its), ("after", its, mine)):
        missing = [key for key, value in older.items() if value is None and newer.get(key) is not None]
        if missing:
            yield f"{name.capitalize()}, {a.kind}: an older version wrote it, without {' and '.join(missing)}."


def _match(before: Results, after: Results) -> tuple[list[tuple[Any, Any]], list[str]]:
    """Pairs of equal measurements, and a sentence for each that has no counterpart."""
    pairs, alone, waiting = [], [], list(after.measurements)
    for a in before.measurements:
        counterpart = next((b for b in waiting if not _differences(a, b)), None)
        if counterpart is None:
            alone.append(a)
        else:
            waiting.remove(counterpart)
            pairs.append((a, counterpart))
    sentences = [_describe_unmatched(a, waiting, "before", "after") for a in alone]
    return pairs, sentences + [_describe_unmatched(b, alone, "after", "before") for b in waiting]


def _describe_unmatched(measurement: Any, others: Sequence[Any], here: str, there: str) -> str:
    executed = getattr(measurement, "executed", None)
    name = f"{measurement.kind} ({executed.backend}, {executed.device})" if executed else measurement.kind
    found = [_differences(measurement, other) for other in others if other.kind == measurement.kind]
    if not found:
        return f"{name} is only in `{here}`"
    closest = min(found, key=lambda differences: len(differences))
    return f"{name} of `{here}` differs from that of `{there}` in {', '.join(closest)}"


def _compare(a: Any, b: Any, floor: float) -> Compared:
    work, executed = getattr(a, "work", None), getattr(a, "executed", None)
    found = list(changes_of(a, b, floor))
    text = describe_executed(executed) if executed else ""
    return Compared(
        kind=a.kind,
        work=describe_work(work) if work else "",
        executed=f"{text} -> {b.executed.version}" if executed and executed.version != b.executed.version else text,
        changes=[change for change in found if isinstance(change, Change)],
        left_out=[name for name in found if isinstance(name, str)],
    )
