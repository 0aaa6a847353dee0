"""Loads and calls graphs with amodal's backend on the stand-ins, and prints what was counted:

    python measure.py LIBRARY... < JOBS.json

The packages `onnxruntime` of the wheel for CUDA and `cupy` of `tests/stand_in` must be the ones on the path. A job is
{"graph": FILE, "sizes": {AXIS: N}, "precision": "fp16", "repeated": true, "options": {...}, "calls": 3}; the answer to
each is a JSON object on a line: `Measured`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cuda import FakeCuda


@dataclass
class Job:
    """A graph to run; `sizes` are those of its free axes, `options` as in `CudaOptions`."""

    graph: str
    sizes: dict[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    repeated: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    calls: int = 3
    kind: str = "component"
    vram: int | None = None


@dataclass
class Measured:
    """What a job took.

    Attributes:
        error: the message of amodal's error, at which it ended.
        providers: number of nodes by provider, and by operator there.
        weights: device bytes after loading.
        arena: device bytes beyond that, after each call; `peak` at most.
        counts: of each call.
        described: by the backend.
    """

    error: str = ""
    providers: dict[str, dict[str, int]] = field(default_factory=dict)
    weights: int = 0
    arena: list[int] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    described: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Reads jobs, writes answers."""
    fake = FakeCuda([Path(p) for p in sys.argv[1:]])
    for job in json.load(sys.stdin):
        print(json.dumps(asdict(measure(Job(**job), fake))), flush=True)


def measure(job: Job, fake: FakeCuda) -> Measured:
    """Loads a graph, calls it, and closes it."""
    from amodal.runtime.errors import AmodalError

    found = Measured()
    try:
        _measure(job, fake, found)
    except AmodalError as error:
        found.error = f"{type(error).__name__}: {error}"
    return found


def _measure(job: Job, fake: FakeCuda, found: Measured) -> None:
    import cupy

    from amodal.runtime.backends.gpu import find_gpu
    from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend, import_cuda
    from amodal.runtime.bundle.manifest import ComponentEntry, ComponentFile

    file = Path(job.graph)
    listed = (ComponentFile(path=file.name, role="graph", bytes=1, sha256="0" * 64),)
    facts = {"kind": job.kind, "precision": job.precision, "stored": job.precision, "repeated": job.repeated}
    empty: dict[str, Any] = {"variant": {}, "parameters": 0, "inputs": (), "outputs": (), "source": ""}
    entry = ComponentEntry(files=listed, **facts, **empty)
    backend = OnnxRuntimeCudaBackend(
        import_cuda(), cupy, find_gpu(cupy, "onnxruntime"), CudaOptions(**job.options), vram=job.vram
    )
    before = fake.bytes_now
    with backend.active():
        executable: Any = backend.load(entry, [file])
        session = executable._session
        for part in session.get_provider_graph_assignment_info():
            there = found.providers.setdefault(part.ep_name, {})
            for node in part.get_nodes():
                there[node.op_type] = there.get(node.op_type, 0) + 1
        found.described = backend.describe()
        found.weights = fake.bytes_now - before
        inputs = {
            i.name: cupy.zeros([n if isinstance(n, int) else job.sizes[n] for n in i.shape]).astype("float32")
            for i in session.get_inputs()
        }
        for _ in range(job.calls):
            fake.forget()
            executable(inputs)
            found.counts.append(dict(fake.counts))
            found.arena.append(fake.bytes_now - before - found.weights)
            found.peak.append(fake.bytes_peak - before - found.weights)
        executable.close()


if __name__ == "__main__":
    main()
