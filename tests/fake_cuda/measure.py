"""Loads and calls graphs with amodal's backend on the stand-ins, and prints what was counted:

    python -m tests.fake_cuda.measure LIBRARY... < JOBS.json

The packages `onnxruntime` of the wheel for CUDA and `cupy` of `tests/stand_in` must be the ones on the path. A job is
{"graph": FILE, "sizes": {AXIS: N}, "precision": "fp16", "repeated": true, "options": {...}, "calls": 3}; the answer to
each is a JSON object on a line: `Measured`.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .cuda import FakeCuda


@dataclass
class Job:
    """A graph to call, or a bundle whose steps of denoising to count.

    Attributes:
        graph: file; of a bundle, its folder.
        record: measure the bundle's memory instead, as amodal does on a GPU, and the peaks of clips.
        sizes: of the graph's free axes.
        options: as in `CudaOptions`.
        threads: that call it, one after the other.
        together: as many components load, call and close at the same time, each in its own thread; the counts are of
            all.
        vram: limit on GPU memory in bytes, as a user sets it.
        device_bytes: memory of the GPU.
    """

    graph: str
    sizes: dict[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    repeated: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    calls: int = 3
    kind: str = "component"
    threads: int = 1
    together: int = 1
    vram: int | None = None
    device_bytes: int = 24 * 2**30
    bundle: bool = False
    record: bool = False


@dataclass
class Measured:
    """What a job took.

    Attributes:
        error: the message of amodal's error, at which it ended.
        providers: number of nodes by provider, and by operator there.
        weights: device bytes after loading.
        arena, peak: device bytes beyond that, after each call and at most during it.
        counts: of each call; of a bundle, from each call of the U-Net to the next.
        held: bytes that the backend counts of it, at the end.
        described: by the backend.
        recorded: the bundle's memory, as `MemoryRecord` in JSON.
    """

    error: str = ""
    providers: dict[str, dict[str, int]] = field(default_factory=dict)
    weights: int = 0
    arena: list[int] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    held: int = 0
    described: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)


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

    gpu = find_gpu(cupy, "onnxruntime")
    backend = OnnxRuntimeCudaBackend(import_cuda(), cupy, gpu, CudaOptions(**job.options), job.vram)
    fake.hold(job.device_bytes)
    cupy.cuda.runtime.memGetInfo = lambda: (job.device_bytes - fake.bytes_now, job.device_bytes)
    if job.record:
        _record(job, backend, fake, found)
        return
    if job.bundle:
        _count_steps(job, backend, fake, found)
        return
    if job.together > 1:
        _count_together(job, backend, fake, found)
        return
    before = fake.bytes_now
    with backend.active():
        executable: Any = backend.load(_entry(job), _files(job))
    session = executable._session
    for part in session.get_provider_graph_assignment_info():
        there = found.providers.setdefault(part.ep_name, {})
        for node in part.get_nodes():
            there[node.op_type] = there.get(node.op_type, 0) + 1
    found.described = backend.describe()
    found.weights = fake.bytes_now - before

    def call() -> None:
        with backend.active():
            inputs = _inputs(job, session)
            fake.forget()
            executable.map([inputs])
        found.counts.append(dict(fake.counts))
        found.arena.append(fake.bytes_now - before - found.weights)
        found.peak.append(fake.bytes_peak - before - found.weights)

    for _ in range(job.threads):
        with ThreadPoolExecutor(1) as pool:
            for _ in range(job.calls):
                pool.submit(call).result()
    (found.held,) = backend._held.values()
    with backend.active():
        executable.close()


def _inputs(job: Job, session: Any) -> dict[str, Any]:
    import cupy

    shapes = {i.name: [n if isinstance(n, int) else job.sizes[n] for n in i.shape] for i in session.get_inputs()}
    return {name: cupy.zeros(shape).astype("float32") for name, shape in shapes.items()}


def _count_together(job: Job, backend: Any, fake: FakeCuda, found: Measured) -> None:
    def live(_: int) -> None:
        for _ in range(job.calls):
            with backend.active():
                executable = backend.load(_entry(job), _files(job))
                inputs = _inputs(job, executable._session)
                for _ in range(3):
                    executable(inputs)
                executable.close()

    fake.forget()
    with ThreadPoolExecutor(job.together) as pool:
        list(pool.map(live, range(job.together)))
    found.counts.append(dict(fake.counts))


def _files(job: Job) -> list[Path]:
    return [Path(job.graph), *(data for data in [Path(f"{job.graph}.data")] if data.is_file())]


def _entry(job: Job) -> Any:
    from amodal.runtime.bundle.manifest import ComponentEntry, ComponentFile

    file = ComponentFile(path=Path(job.graph).name, role="graph", bytes=1, sha256="0" * 64)
    facts = {"kind": job.kind, "precision": job.precision, "stored": job.precision, "repeated": job.repeated}
    empty: dict[str, Any] = {"variant": {}, "parameters": 0, "inputs": (), "outputs": (), "source": ""}
    return ComponentEntry(files=(file,), **facts, **empty)


def _record(job: Job, backend: Any, fake: FakeCuda, found: Measured) -> None:
    """Records a bundle's memory, then runs clips of its first stage: two with all loaded, two with one at a time."""
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.recording import record_memory
    from amodal.runtime.model import Model

    bundle = Bundle(job.graph)
    made = record_memory(bundle, bundle.family, backend, "a stand-in for CUDA, without workspaces")
    found.recorded = made.model_dump(mode="json")
    for memory in ("resident", "sequential") if job.calls else ():
        before = fake.bytes_now
        fake.forget()
        with Model(bundle, backend, memory, verify=False) as model:
            for _ in range(2):
                _segment(model, job.calls)
            found.peak.append(fake.bytes_peak - before)


def _segment(model: Any, steps: int) -> None:
    import numpy as np

    from amodal.runtime.errors import NonFiniteError

    frames, (height, width) = model.config.frames, model.config.size
    modal = np.zeros((frames, height, width), bool)
    modal[:, : height // 2, : width // 2] = True
    with suppress(NonFiniteError):  # nothing is computed
        model.segment(modal, depth=modal.astype(np.float32), steps=steps)


def _count_steps(job: Job, backend: Any, fake: FakeCuda, found: Measured) -> None:
    """Runs a bundle's first stage, and counts between the U-Net's calls what the driver and CuPy are asked for."""
    import cupy

    from amodal.runtime.backends.onnxruntime.bound import BoundSession
    from amodal.runtime.families import Bundle
    from amodal.runtime.model import Model

    original = BoundSession.map

    def counted(self: Any, batches: Any) -> Any:
        if self._kind == "unet":
            asked = {"wait of CuPy": cupy.waits, "upload of CuPy": len(cupy.uploads)}
            found.counts.append({**fake.counts, **asked, "download of CuPy": len(cupy.downloads)})
            fake.forget()
            cupy.waits = 0
            cupy.uploads.clear()
            cupy.downloads.clear()
        return original(self, batches)

    BoundSession.map = counted  # type: ignore[method-assign]
    try:
        with Model(Bundle(job.graph), backend, verify=False) as model:
            _segment(model, job.calls)
    finally:
        BoundSession.map = original  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
