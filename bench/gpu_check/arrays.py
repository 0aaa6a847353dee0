"""Everything outside the networks on CuPy beside numpy, at the real size: `python -m amodal.bench.gpu_check.arrays`.

Prints one JSON object. Most of it must have the same bits on both, as noise from a seed must; the rest may differ in
the last bits of a float.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from amodal.runtime.arrays.resampling import opencv_cubic, opencv_linear, opencv_nearest, pillow_bilinear
from amodal.runtime.pictures import depth, images
from amodal.runtime.sampling.noise import NoiseStream

FRAMES, GIVEN, SIZE = 25, (480, 854), (256, 512)
_CLIP = (224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Case(NamedTuple):
    """A computation written against the array API.

    Attributes:
        inputs: names of what it takes before `xp`.
        exact: whether its bits must be the same everywhere.
    """

    run: Callable[..., Any]
    inputs: tuple[str, ...]
    exact: bool = True


CASES: dict[str, Case] = {
    "noise, float32": Case(lambda xp: NoiseStream(23).draw((FRAMES, 3, *SIZE)).normals(xp), ()),
    "noise, float16": Case(lambda xp: NoiseStream(23).draw((FRAMES, 4, 32, 64), "float16").normals(xp), ()),
    "bilinear, Pillow's": Case(lambda x, xp: pillow_bilinear(x, SIZE, xp), ("rgb",)),
    "linear, OpenCV's": Case(lambda x, xp: opencv_linear(x, SIZE, xp), ("rgb",)),
    "cubic, OpenCV's": Case(lambda x, xp: opencv_cubic(x, SIZE, xp), ("rgb",), False),
    "nearest, OpenCV's": Case(lambda x, xp: opencv_nearest(x, SIZE, xp), ("masks",)),
    "frames prepared": Case(lambda x, xp: images.prepare_rgb(x, SIZE, xp), ("rgb",)),
    "masks prepared": Case(lambda x, xp: images.prepare_modal(x, SIZE, xp), ("masks",)),
    "depth prepared": Case(lambda x, xp: images.prepare_depth(x, SIZE, xp), ("depth",)),
    "pixels for CLIP": Case(lambda x, xp: images.clip_pixels(x, *_CLIP, xp), ("prepared",), False),
    "frames as bytes": Case(lambda x, xp: images.to_bytes(x, xp), ("prepared",)),
    "frames for depth": Case(lambda x, xp: depth.prepare_depth_input(x, xp=xp), ("one",), False),
    "depth resized": Case(lambda x, xp: depth.resize_align_corners(x, SIZE, xp), ("depth",), False),
}


def make_inputs(frames: int = FRAMES, given: tuple[int, int] = GIVEN, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Returns the inputs of the cases, on the host, from a seed."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (frames, *given, 3), np.uint8)
    prepared = rng.random((frames, 3, *size), np.float32) * 2 - 1
    maps = rng.random((frames, *given), np.float32)
    return {"rgb": rgb, "one": rgb[:1], "masks": maps > 0.7, "depth": maps, "prepared": prepared}


def compare(xp: Any, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs every case on numpy and on `xp`.

    Returns:
        A row per case: `case`; `equal`, whether all bits are; `wanted`, whether they must be; `difference`, the largest
        one; `host` and `device`: seconds, of the second run on the device; `error` instead, where it failed.
    """
    there = {name: xp.asarray(value) for name, value in inputs.items()}
    rows = []
    for name, case in CASES.items():
        row: dict[str, Any] = {"case": name, "wanted": case.exact}
        try:
            expected, host = _timed(partial(case.run, *(inputs[n] for n in case.inputs), np))
            _timed(partial(_fetched, case, there, xp))
            found, device = _timed(partial(_fetched, case, there, xp))
            wide = np.abs(found.astype(np.float64) - np.asarray(expected, np.float64))
            row |= {"equal": found.tobytes() == expected.tobytes(), "difference": float(wide.max())}
            row |= {"host": host, "device": device}
        except Exception as error:  # noqa: BLE001 (whatever CuPy raises is the row)
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def _fetched(case: Case, there: Mapping[str, Any], xp: Any) -> Any:
    return xp.asnumpy(case.run(*(there[name] for name in case.inputs), xp))


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return run(), time.perf_counter() - begin


def main() -> None:
    """Prints the rows; fails if a case failed, or bits differ that must not."""
    from amodal.runtime.backends.gpu import open_gpu

    cupy, gpu = open_gpu("cupy", "cuda", None)
    with cupy.cuda.Device(gpu.number):
        rows = compare(cupy, make_inputs())
    print(json.dumps({"arrays": rows}))
    wrong = [row["case"] for row in rows if "error" in row or (row["wanted"] and not row["equal"])]
    if wrong:
        raise SystemExit(f"differs from numpy: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
