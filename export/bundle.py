"""Writes a bundle: the graphs of a family's plan, each compared with torch, in a folder that appears complete."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from amodal import __version__
from amodal.engines.compare import TOLERANCES
from amodal.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, ComponentEntry, FileRole, Manifest
from amodal.runtime.errors import ExportError
from amodal.runtime.files.atomic import check_output, staged_folder
from amodal.runtime.files.results import write_json
from amodal.runtime.paths import PathLike
from amodal.runtime.progress import Progress, silent

from .check import check_structure, measure_differences
from .fusing import can_be_fused, file_entry, write_fused
from .plan import ComponentPlan, ExportPlan


@dataclass(frozen=True)
class Exported:
    """One component of a finished export.

    Attributes:
        check_size: (H, W) at which `entry.difference` was measured.
        seconds: time to write, compare and hash.
    """

    key: str
    entry: ComponentEntry
    check_size: tuple[int, int]
    seconds: float


def export_bundle(
    out: PathLike,
    plan: ExportPlan,
    *,
    overwrite: bool = False,
    inputs: Iterable[PathLike] = (),
    progress: Progress = silent,
) -> list[Exported]:
    """Writes a bundle.

    Args:
        out: the folder to write.
        overwrite: replace a bundle there.
        inputs: paths that the export reads, and must not replace.
        progress: called with a component and a phase: `read`, `write` (bytes), `compare`, `hash`, or `shared` with an
            earlier component.

    Returns:
        One row per component, in order of writing.

    Raises:
        InputError: `out` is not empty, or contains one of the inputs.
        CheckpointError: weights are missing, misshapen or out of range.
        ExportError: a graph, or its fused twin, differs from its torch module by more than the tolerance.
        OutputError: the disk is full or read-only; nothing is left behind.
    """
    check_output(out, overwrite, MANIFEST_NAME, inputs)
    with staged_folder(out, overwrite, MANIFEST_NAME, inputs) as folder:
        writer = _Writer(folder / "graphs", plan, progress)
        keys = {component.key: writer.add(component) for component in plan.components}
        write_json(folder / MANIFEST_NAME, _manifest(plan, keys, writer.rows).as_json())
    return writer.rows


def _manifest(plan: ExportPlan, keys: Mapping[str, str], rows: Iterable[Exported]) -> Manifest:
    """Returns the manifest; `keys` maps a component's key in the plan to its graph's in the bundle."""
    tasks = {
        name: task.model_copy(update={"components": {role: keys[key] for role, key in task.components.items()}})
        for name, task in plan.tasks.items()
    }
    return Manifest.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "family": plan.family,
            "amodal_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config": dict(plan.config),
            "tasks": tasks,
            "components": {row.key: row.entry for row in rows},
        }
    )


class _Writer:
    """Writes the graphs of a plan into a new folder; equal networks share one."""

    def __init__(self, folder: Path, plan: ExportPlan, progress: Progress) -> None:
        folder.mkdir()
        self.folder, self.plan, self.progress = folder, plan, progress
        self.rows: list[Exported] = []
        self._keys: dict[tuple[str, str], str] = {}  # kind, fingerprint -> key
        self._kinds = Counter(component.kind for component in plan.components)

    def add(self, component: ComponentPlan) -> str:
        """Writes one graph, unless an equal one is there; returns its key in the bundle."""
        start, kind = time.perf_counter(), component.kind
        shareable = component.fingerprint is not None and kind not in {row.key for row in self.rows}
        key = kind if shareable else component.key
        self.progress(key, "read")
        alone = component.fingerprint is None or self._kinds[kind] == 1  # hashing reads all weights
        identity = (kind, component.key if alone or component.fingerprint is None else component.fingerprint())
        if identity in self._keys:
            self.progress(key, "shared")
            return self._keys[identity]
        entry = self._write(component, key)
        self.rows.append(Exported(key, entry, component.check_size, time.perf_counter() - start))
        self._keys[identity] = key
        return key

    def _write(self, component: ComponentPlan, key: str) -> ComponentEntry:
        plan, file = self.plan, self.folder / f"{key}.onnx"
        graph = component.write(component.size)
        weights = graph.save(file, partial(self.progress, key, "write"))
        check_structure(file)
        twin = write_fused(file) if can_be_fused(component.precision, plan.variant.name) else None
        difference = None
        if plan.compare:
            self.progress(key, "compare")
            limit = TOLERANCES[plan.stored] * component.slack
            difference = self._check(key, limit, measure_differences(component, file, twin, weights))
        self.progress(key, "hash")
        data = file.with_name(file.name + ".data")
        files: dict[FileRole, Path | None] = {"graph": file, "weights": data, "fused": twin}
        return ComponentEntry(
            kind=component.kind,
            files=tuple(file_entry(f, role) for role, f in files.items() if f is not None and f.exists()),
            precision=component.precision,
            stored=plan.stored,
            variant=plan.variant.as_dict(),
            parameters=graph.parameters,
            inputs=tuple(graph.inputs),
            outputs=tuple(graph.outputs),
            difference=difference,
            source=component.source,
            repeated=component.repeated,
            least_precision=component.least_precision,
            bfloat16=component.bfloat16,
        )

    def _check(self, key: str, limit: float, differences: Mapping[str, float]) -> float:
        """Returns the largest difference from torch, which must be within the limit."""
        for name, difference in differences.items():
            if not difference <= limit:
                raise ExportError(
                    f"the {name} of {key} differs from its torch module by {difference:.2g} (relative L2), more than "
                    f'{limit:.0e}; try `precision="fp32"`, and please report it.'
                )
        return max(differences.values())
