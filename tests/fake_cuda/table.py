"""Prints what the components take at the real size, and the U-Net's step with one form or option changed at a time:

PYTHONPATH=src:. python -m tests.fake_cuda.table
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from amodal.export.graph import layers
from amodal.export.graph.variants import VARIANTS

from .graphs import SIZES, job_of, launches, planned
from .prepare import prepare
from .traffic import between_kernels, bytes_moved

_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "variant `cuda`": ({}, {}),
    "norms with weights per channel alone": ({"_PER_VALUE": 0}, {}),
    "heads transposed (`attention` native)": ({"attention": "native"}, {}),
    "attention decomposed": ({"attention": "decomposed"}, {}),
    "gates merged": ({"gates": "merged"}, {}),
    "query, key and value merged": ({"qkv": "merged"}, {}),
    "time embeddings added": ({"time": "added"}, {}),
    "phases before upsampling": ({"upsample": "phases"}, {}),
    "NCHW": ({}, {"nhwc": False}),
    "biases inside convolutions": ({}, {"fuse_bias": True}),
}


def main() -> None:
    """Writes the graphs, measures them and prints tables."""
    with tempfile.TemporaryDirectory() as folder:
        measure = prepare(Path(folder))
        components = planned("diffusion-vas", variant="cuda", precision="fp16")
        print("| component | launches | GB of weights | GB of activations |\n|---|---|---|---|")
        for kind, component in components.items():
            (found,) = measure([job_of(component, Path(folder))])
            count = launches(found.counts[0], "recorded " if component.repeated else "")
            print(f"| {kind} | {count} | {found.weights / 1e9:.2f} | {max(found.peak) / 1e9:.2f} |", flush=True)
        print("| form | launches | GB between kernels | GB in all | GB of weights | GB of activations |")
        print("|---|---|---|---|---|---|")
        for name, (form, options) in _ROWS.items():
            job = _written(form, Path(folder), options)
            (found,) = measure([job])
            moved = bytes_moved(Path(job["graph"]), SIZES)
            count = launches(found.counts[0], "recorded ") if found.counts else 0
            figures = (between_kernels(moved), sum(moved.values()), found.weights, max(found.peak, default=0))
            print(f"| {name} | {count} | {' | '.join(f'{n / 1e9:.2f}' for n in figures)} | {found.error}", flush=True)


def _written(form: dict[str, Any], folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    before = layers._PER_VALUE
    layers._PER_VALUE = form.get("_PER_VALUE", before)
    VARIANTS["changed"] = replace(
        VARIANTS["cuda"], name="changed", **{k: v for k, v in form.items() if k != "_PER_VALUE"}
    )
    try:
        return job_of(planned("diffusion-vas", variant="changed", precision="fp16")["unet"], folder, options=options)
    finally:
        layers._PER_VALUE = before


if __name__ == "__main__":
    main()
