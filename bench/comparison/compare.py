"""What got slower, larger or worse between two results files, with the noise taken into account.

Only what was measured alike is compared: the same kind, the same work, the same backend, device, memory mode and
options. Everything else is named, never averaged away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amodal.runtime.errors import InputError

from .. import statistics
from ..schema import Executed, Fidelity, Peers, Quality, Record, Results
from ..wording import describe_executed, describe_work
from .changes import Change
from .comparers import changes_of

_SOFTWARE = {"cuda_driver", "cuda_runtime"}
"""Options that say what something is, not how it was told to run; that they changed is often what one wants to know."""


class Compared(Record):
    """One measurement that both files have.

    Attributes:
        kind: such as `latency`. work, executed: what was done, and how; empty where the kind has none.
        left_out: parts that only one of the two has, or that were asked for something else.
    """

    kind: str
    work: str
    executed: str
    changes: list[Change]
    left_out: list[str]


class Comparison(Record):
    """Two results files, side by side.

    Attributes:
        same_machine, same_bundle: by fingerprint, and by the manifest's hash.
        floor: what two runs of the same thing may differ by; see `statistics.compare`.
        notes: what a reader must know before believing the figures.
        unmatched: measurements that have no partner, and what differs.
    """

    same_machine: bool
    same_bundle: bool
    floor: float
    notes: list[str]
    compared: list[Compared]
    unmatched: list[str]

    def failures(self, limit: float) -> list[tuple[Compared, Change]]:
        """What got worse by more than `limit`, a share, beyond noise."""
        return [(m, change) for m in self.compared for change in m.changes if change.fails(limit)]


def compare_results(
    before: Results, after: Results, *, floor: float = statistics.FLOOR, across_machines: bool = False
) -> Comparison:
    """Compares two results files.

    Args:
        floor: a share, by which the median of the same thing may differ between two runs.
        across_machines: compare although the machines differ.

    Raises:
        InputError: the machines differ and that was not asked for, or the files have no measurement in common.
    """
    same_machine = before.machine.fingerprint == after.machine.fingerprint
    if not same_machine and not across_machines:
        raise InputError(
            f"The results are of two machines ({_machine(before)}; {_machine(after)}), so that a difference says "
            "nothing about the code; measure both on one, or compare them all the same with `across_machines=True`."
        )
    compared, unmatched = _pairs(before, after)
    found = [_compare(a, b, floor) for a, b in compared]
    if not found:
        why = f": {unmatched[0]}" if unmatched else "; both are empty"
        raise InputError(f"The two results have no measurement in common{why}. Measure both with the same settings.")
    return Comparison(
        same_machine=same_machine,
        same_bundle=before.bundle.manifest == after.bundle.manifest,
        floor=floor,
        notes=[*_notes(before, after, same_machine), *(note for pair in compared for note in _unknown(*pair))],
        compared=found,
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
        yield (
            f"Two bundles: {before.bundle.name} ({before.bundle.manifest[:12]}) and {after.bundle.name} "
            f"({after.bundle.manifest[:12]}), whose weights or graphs differ."
        )
    for name, results in (("before", before), ("after", after)):
        if not results.finished:
            yield f"The suite of `{name}` was interrupted; what it had not reached is missing."
    old, new = {**before.versions, **_software(before)}, {**after.versions, **_software(after)}
    differing = [
        f"{k} {old.get(k, 'absent')} -> {new.get(k, 'absent')}"
        for k in sorted({*old, *new})
        if old.get(k) != new.get(k)
    ]
    if differing:
        yield f"Other versions: {', '.join(differing)}."
    for name, results in (("before", before), ("after", after)):
        for m in results.measurements:
            for warning in getattr(m, "warnings", []):
                yield f"{name.capitalize()}, {m.kind}: {warning}"


def _software(results: Results) -> dict[str, str]:
    machine = results.machine
    gpu = {"driver": machine.gpu.driver, "CUDA": machine.gpu.cuda} if machine.gpu else {}
    return {"python": machine.python, "system": machine.system, **gpu}


def _identity(measurement: Any) -> dict[str, str | None]:
    """What must be equal for two measurements to be of the same thing; None where an older file does not say."""
    identity: dict[str, str | None] = {"kind": measurement.kind}
    work, executed = getattr(measurement, "work", None), getattr(measurement, "executed", None)
    if work is not None:
        identity |= {key: str(value) for key, value in work.model_dump().items()}
    if executed is not None:
        identity |= {"backend": executed.backend, "device": executed.device, "memory": executed.memory}
        identity |= {k: v for k, v in executed.options.items() if k not in _SOFTWARE and k != "version"}
    if isinstance(measurement, Fidelity):
        identity["reference"] = measurement.compared_with
    if isinstance(measurement, Quality):
        identity |= {"scenes": str(measurement.scenes), "workers": _said(measurement.workers)}
    if isinstance(measurement, Peers):
        identity |= {"device": measurement.device, "threads": _said(measurement.threads)}
    return identity


def _said(count: int | None) -> str | None:
    return None if count is None else str(count)


def _differing(mine: dict[str, str | None], its: dict[str, str | None]) -> list[str]:
    """Keys in which two identities differ; what an older file does not say differs from nothing."""
    return [k for k in {**mine, **its} if None not in (mine.get(k, ""), its.get(k, "")) and mine.get(k) != its.get(k)]


def _unknown(a: Any, b: Any) -> Iterator[str]:
    mine, its = _identity(a), _identity(b)
    for name, older, newer in (("before", mine, its), ("after", its, mine)):
        missing = [key for key, value in older.items() if value is None and newer.get(key) is not None]
        if missing:
            yield f"{name.capitalize()}, {a.kind}: an older version wrote it, without {' and '.join(missing)}."


def _pairs(before: Results, after: Results) -> tuple[list[tuple[Any, Any]], list[str]]:
    pairs, alone = [], []
    waiting = list(after.measurements)
    for a in before.measurements:
        partner = next((b for b in waiting if not _differing(_identity(a), _identity(b))), None)
        if partner is None:
            alone.append(a)
        else:
            waiting.remove(partner)
            pairs.append((a, partner))
    said = [_unmatched(a, waiting, "before", "after") for a in alone]
    return pairs, said + [_unmatched(b, alone, "after", "before") for b in waiting]


def _unmatched(measurement: Any, others: Sequence[Any], here: str, there: str) -> str:
    mine = _identity(measurement)
    closest: list[str] | None = None
    for other in (o for o in others if o.kind == measurement.kind):
        its = _identity(other)
        found = [f"{k} {mine.get(k, 'absent')} against {its.get(k, 'absent')}" for k in _differing(mine, its)]
        closest = found if closest is None or len(found) < len(closest) else closest
    executed = getattr(measurement, "executed", None)
    name = f"{measurement.kind} ({executed.backend}, {executed.device})" if executed else measurement.kind
    if closest is None:
        return f"{name} is only in `{here}`"
    return f"{name} of `{here}` differs from that of `{there}` in {', '.join(closest)}"


def _compare(a: Any, b: Any, floor: float) -> Compared:
    work, executed = getattr(a, "work", None), getattr(a, "executed", None)
    found = list(changes_of(a, b, floor))
    return Compared(
        kind=a.kind,
        work=describe_work(work) if work else "",
        executed=_executed(executed, b.executed) if executed else "",
        changes=[change for change in found if isinstance(change, Change)],
        left_out=[name for name in found if isinstance(name, str)],
    )


def _executed(before: Executed, after: Executed) -> str:
    text = describe_executed(before)
    return text if before.version == after.version else f"{text} -> {after.version}"
