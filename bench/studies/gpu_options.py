"""The U-Net's step on ONNX Runtime's CUDA provider, with one of its options changed at a time.

    python -m amodal.bench.studies.gpu_options BUNDLE

prints one JSON object. Each case is a process of its own: an option may crash, and libraries keep what they once chose.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
import numpy as np

from amodal.engines.compare import relative_l2
from amodal.engines.isolated import run_isolated
from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend
from amodal.runtime.errors import AmodalError
from amodal.runtime.families import Bundle

CASES: dict[str, CudaOptions] = {
    "as it is": CudaOptions(),
    "no CUDA graph": replace(CudaOptions(), cuda_graph=False),
    "channels first": replace(CudaOptions(), nhwc=False),
    "TF32": replace(CudaOptions(), tf32=True),
    "algorithms timed": replace(CudaOptions(), conv_search="EXHAUSTIVE"),
    "cuDNN's attention": replace(CudaOptions(), attention=1 | 2 | 8 | 16),
    "attention not fused": replace(CudaOptions(), attention=16),
}
"""By name; the first is what the others are compared with."""

_LIMIT = 90.0  # seconds of one case
_ROWS = 2


def time_case(
    bundle: Bundle, make: Callable[[CudaOptions], OnnxRuntimeCudaBackend], options: CudaOptions, calls: int = 10
) -> dict[str, Any]:
    """Runs the first stage's U-Net, both CFG rows in one call.

    Returns:
        `first`: seconds of the first call, capture and all; `seconds`: of each of three rounds, per call; `bit_equal`:
        whether two calls gave the same; `sums`: of the result's parts, to compare cases; `described`.

    Raises:
        AmodalError: it cannot be loaded or run.
    """
    key = next(iter(bundle.manifest.tasks.values())).components["unet"]
    rng = np.random.default_rng(0)
    feeds = {
        tensor.name: rng.standard_normal([_ROWS if isinstance(n, str) else n for n in tensor.shape]).astype(np.float32)
        for tensor in bundle.component(key).inputs
    }
    backend = make(options)
    with backend.active():
        stream = backend.xp.cuda.get_current_stream()
        inputs = {name: backend.xp.asarray(value) for name, value in feeds.items()}
        unet = backend.load(bundle.component(key), bundle.files(key))

        def timed(count: int) -> tuple[float, Any]:
            stream.synchronize()
            begin = time.perf_counter()
            for _ in range(count):
                result = unet(inputs)["velocity"]
            stream.synchronize()
            return (time.perf_counter() - begin) / count, backend.to_host(result)

        first, one = timed(1)
        seconds, two = [], one
        for _ in range(3):
            taken, two = timed(calls)
            seconds.append(taken)
        unet.close()
    flat = two.astype(np.float64).reshape(-1)
    return {
        "first": first,
        "seconds": seconds,
        "bit_equal": bool(np.array_equal(one, two)),
        "sums": [float(part.sum()) for part in np.array_split(flat, 256)],
        "described": backend.describe(),
    }


def compare_cases(bundle: str, calls: int = 10) -> list[dict[str, Any]]:
    """Every case in a process of its own; one that fails has an `error` instead of times.

    Returns:
        One row per case: as `time_case`, with `difference`: of the results' sums to the first case's, relative.
    """
    rows: list[dict[str, Any]] = []
    for name in CASES:
        command = [
            sys.executable,
            "-m",
            "amodal.bench.studies.gpu_options",
            bundle,
            "--case",
            name,
            "--calls",
            str(calls),
        ]
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
@click.option("--case", type=click.Choice(list(CASES)), help="Only this one, in this process.")
@click.option("--calls", type=click.IntRange(min=1), default=10, show_default=True, help="Of each round.")
def main(bundle: str, case: str | None, calls: int) -> None:
    """The U-Net's step with one option of ONNX Runtime's CUDA provider changed at a time, as JSON."""
    from amodal.runtime.backends.gpu import open_gpu
    from amodal.runtime.backends.onnxruntime.cuda import import_cuda

    if case is None:
        click.echo(json.dumps({"options": compare_cases(bundle, calls)}))
        return
    try:
        ort, (cupy, gpu) = import_cuda(), open_gpu("onnxruntime", "cuda", None)
        found = time_case(
            Bundle(bundle), lambda options: OnnxRuntimeCudaBackend(ort, cupy, gpu, options), CASES[case], calls
        )
    except AmodalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
