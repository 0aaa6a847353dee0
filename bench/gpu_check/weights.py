"""A bundle without its weights, to be carried to a GPU, and random weights in their place there.

    amodal export --random diffusion-vas --random-depth none --variant cuda --check none -o weightless
    python -m amodal.bench.gpu_check.weights strip weightless      # 6 GB become a few MB
    python -m amodal.bench.gpu_check.weights fill weightless       # on the machine with the GPU

Each tensor gets random numbers with the mean and spread of the one that was there. Hashes no longer hold: load such a
bundle with `verify=False`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from .plan import WEIGHTS

_AT_ONCE = 1 << 26
_TYPES = {1: "float32", 10: "float16"}


def strip(bundle: Path) -> None:
    """Deletes a bundle's external weights, and lists them in its `weights.json`."""
    import onnx

    files: dict[str, Any] = {}
    for graph in sorted((bundle / "graphs").glob("*.onnx")):
        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if not place:
                continue
            data = graph.parent / place["location"]
            row = files.setdefault(data.name, {"bytes": data.stat().st_size, "tensors": {}})
            offset, count = int(place["offset"]), int(np.prod(tensor.dims))
            values = np.fromfile(data, _TYPES[tensor.data_type], count, offset=offset).astype(np.float32)
            row["tensors"][str(offset)] = [count, _TYPES[tensor.data_type], float(values.mean()), float(values.std())]
    (bundle / WEIGHTS).write_text(json.dumps(files))
    for name in files:
        (bundle / "graphs" / name).unlink()


def fill(bundle: Path, xp: Any = np, seed: int = 0) -> int:
    """Writes random weights as `weights.json` describes them, drawn on the device of `xp`; returns their bytes."""
    files = json.loads((bundle / WEIGHTS).read_text())
    rng = xp.random.default_rng(seed)
    for name, row in files.items():
        with open(bundle / "graphs" / name, "wb") as data:
            for offset, (count, kind, mean, spread) in row["tensors"].items():
                data.seek(int(offset))
                for begin in range(0, count, _AT_ONCE):
                    drawn = rng.standard_normal(min(_AT_ONCE, count - begin), dtype=np.float32)
                    values = (drawn * np.float32(spread) + np.float32(mean)).astype(kind)
                    (values if xp is np else xp.asnumpy(values)).tofile(data)
            data.truncate(row["bytes"])
    return sum(int(row["bytes"]) for row in files.values())


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.argument("what", type=click.Choice(["strip", "fill"]))
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--host", is_flag=True, help="Draw on the CPU.")
def main(what: str, bundle: Path, host: bool) -> None:
    """Strips or fills a bundle; see the module."""
    if what == "strip":
        strip(bundle)
        return
    if host:
        xp: Any = np
    else:
        from amodal.runtime.backends.gpu import open_gpu

        xp, _ = open_gpu("cupy", "cuda", None)
    click.echo(json.dumps({"bytes": fill(bundle, xp)}))


if __name__ == "__main__":
    main()
