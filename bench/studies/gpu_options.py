"""The U-Net's step on ONNX Runtime's CUDA provider, with one of its options changed at a time.

    python -m amodal.bench.studies.gpu_options BUNDLE

prints one JSON object. Each case runs in its own process: an option may crash, and libraries keep their first choices.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np

from amodal.engines.compare import relative_l2
from amodal.engines.isolated import run_isolated
from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend
from amodal.runtime.families import Bundle

from . import reported_errors

CASES: dict[str, CudaOptions] = {
    "as it is": CudaOptions(),
    "no CUDA graph": CudaOptions(cuda_graph=False),
    "channels first": CudaOptions(nhwc=False),
    "biases inside convolutions": CudaOptions(fuse_bias=True),
    "TF32": CudaOptions(tf32=True),
    "algorithms timed": CudaOptions(conv_search="EXHAUSTIVE"),
    "cuDNN's attention": CudaOptions(attention=1 | 2 | 8 | 16),
    "attention not fused": CudaOptions(attention=16),
}
"""By name; the others are compared with the first."""

_LIMIT = 90.0  # seconds per case
_ROWS = 2


def time_case(
    bundle: Bundle, make: Callable[[CudaOptions], OnnxRuntimeCudaBackend], options: CudaOptions, calls: int = 10
) -> dict[str, Any]:
    """Times the first stage's U-Net, with both CFG rows in one call.

    Returns:
        `first`: seconds of the first call, capture included; `held_bytes` of GPU memory, weights included; `seconds`
        per call of each of three rounds; `bit_equal`: whether the first and the last call gave the same; `sums` of
        parts of the result, to compare cases; `described`.

    Raises:
        AmodalError: the U-Net cannot be loaded or run.
    """
    key = next(iter(bundle.manifest.tasks.values())).components["unet"]
    rng = np.random.default_rng(0)
    shapes = {t.name: [_ROWS if isinstance(n, str) else n for n in t.shape] for t in bundle.component(key).inputs}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    backend = make(options)
    with backend.active():
        stream, free = backend.xp.cuda.get_current_stream(), backend.xp.cuda.runtime.memGetInfo
        inputs = {name: backend.xp.asarray(value) for name, value in feeds.items()}
        before = int(free()[0])
        unet = backend.load(bundle.component(key), bundle.files(key))

        def timed(count: int) -> tuple[float, Any]:
            stream.synchronize()
            begin = time.perf_counter()
            for _ in range(count):
                result = unet(inputs)["velocity"]
            stream.synchronize()
            return (time.perf_counter() - begin) / count, backend.to_host(result)

        (first, one), *rounds = (timed(count) for count in (1, calls, calls, calls))
        held = before - int(free()[0])
        unet.close()
    last = rounds[-1][1]
    return {
        "first": first,
        "held_bytes": held,
        "seconds": [seconds for seconds, _ in rounds],
        "bit_equal": bool(np.array_equal(one, last)),
        "sums": [float(part.sum()) for part in np.array_split(last.astype(np.float64).reshape(-1), 256)],
        "described": backend.describe(),
    }


def compare_cases(bundle: str, calls: int = 10, names: Sequence[str] = tuple(CASES)) -> list[dict[str, Any]]:
    """Runs every case, or those that are named, in its own process.

    Returns:
        One row per case: as `time_case`, or an `error`; and the relative `difference` of its sums from the first's.
    """
    rows: list[dict[str, Any]] = []
    for name in names:
        module = "amodal.bench.studies.gpu_options"
        command = [sys.executable, "-m", module, bundle, "--case", name, "--calls", str(calls), "--here"]
        ended = run_isolated(command, _LIMIT)
        row: dict[str, Any] = {"case": name, "error": ended.trouble}
        if ended.ok:
            row |= json.loads(ended.out.strip().splitlines()[-1])
        rows.append(row)
    reference = rows[0].get("sums")
    for row in rows:
        sums = row.pop("sums", None)
        row["difference"] = relative_l2(sums, reference) if sums and reference else None
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle")
@click.option("--case", "names", type=click.Choice(list(CASES)), multiple=True, help="Only these.")
@click.option("--here", is_flag=True, help="In this process, for one case.")
@click.option("--calls", type=click.IntRange(min=1), default=10, show_default=True, help="Per round.")
@reported_errors()
def main(bundle: str, names: tuple[str, ...], here: bool, calls: int) -> None:
    """The U-Net's step with one option of ONNX Runtime's CUDA provider changed at a time, as JSON."""
    from amodal.runtime.backends.gpu import open_gpu
    from amodal.runtime.backends.onnxruntime.cuda import import_cuda

    if not here:
        click.echo(json.dumps({"options": compare_cases(bundle, calls, names or tuple(CASES))}))
        return
    ort, (cupy, gpu) = import_cuda(), open_gpu("onnxruntime", "cuda", None)
    found = time_case(
        Bundle(bundle), lambda options: OnnxRuntimeCudaBackend(ort, cupy, gpu, options), CASES[names[0]], calls
    )
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
