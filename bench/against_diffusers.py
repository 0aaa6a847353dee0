"""A whole clip, both stages, against the same pipeline in diffusers (eager, float32), on this machine.

    python -m amodal.bench.against_diffusers --segment CKPT --complete CKPT [--bundle BUNDLE] [--repeats 5] [--json]

Each pipeline lives in its own process and loads its weights once; clips are run in turns, so that whatever else the
machine does hits both. Results are compared with each other before any time is reported. Memory is each process's
peak resident set. Without --bundle, the checkpoints are exported first (float32, outside what is measured).
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from amodal.engines.compare import relative_l2
from amodal.runtime.errors import AmodalError, BackendError


@dataclass(frozen=True)
class Work:
    """What both pipelines are asked to do; arrays are prepared, so that only the pipelines are measured."""

    modal: NDArray[np.float32]
    depth: NDArray[np.float32]
    rgb: NDArray[np.float32]
    steps: int
    seed: int = 23


def synthetic_work(frames: int, size: tuple[int, int], steps: int) -> Work:
    """A disc that crosses a gradient: the content does not matter to speed, but masks must not be empty."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    centres = np.linspace(0.25, 0.75, frames) * width
    discs = np.stack([(x - c) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2 for c in centres])
    modal = np.where(discs, 1.0, -1.0).astype(np.float32)
    depth = np.broadcast_to(np.linspace(-1, 1, width, dtype=np.float32), modal.shape).copy()
    rgb = np.repeat(depth[:, None], 3, axis=1) * np.float32(0.9)
    return Work(modal, depth, rgb, steps)


def _ours(pipe: Connection, bundle: Path, work: Work) -> None:
    import amodal

    with amodal.load(bundle, verify=False) as model:

        def clip() -> dict[str, Any]:
            kept: dict[str, Any] = {}
            seen = model.segment(
                work.modal,
                depth=work.depth,
                seed=work.seed,
                steps=work.steps,
                callback=lambda step, sigma, x: kept.update(latents=x),
            )
            whole = model.complete(work.rgb, work.modal, seen.masks, seed=seen.noise, steps=work.steps)
            return {"latents": kept["latents"], "masks": seen.masks, "complete": whole.frames}

        _serve(pipe, clip)


def _diffusers(pipe: Connection, segment: Path, complete: Path, work: Work) -> None:
    from amodal.bench.reference import ReferencePipeline, run_both_stages

    first, second = ReferencePipeline.from_checkpoint(segment), ReferencePipeline.from_checkpoint(complete)

    def clip() -> dict[str, Any]:
        found = run_both_stages(first, second, work.modal, work.depth, work.rgb, work.seed, steps=work.steps)
        return {
            "latents": found["segment"].latents[-1],
            "masks": found["amodal"],
            "complete": found["complete"].frames_u8,
        }

    _serve(pipe, clip)


def _serve(pipe: Connection, clip: Any) -> None:
    pipe.send("ready")
    while pipe.recv() == "clip":
        start = time.perf_counter()
        result = clip()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((seconds, peak, {name: np.asarray(value) for name, value in result.items()}))


class _Peer:
    """A pipeline in a process of its own."""

    def __init__(self, target: Any, *args: Any) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def clip(self) -> tuple[float, int, dict[str, Any]]:
        """Runs one clip: seconds, peak bytes so far, and its results."""
        self._pipe.send("clip")
        result: tuple[float, int, dict[str, Any]] = self._receive()
        return result

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise BackendError("a pipeline's process died; its message is above.") from None

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send("end")
        self._process.join(10)
        self._process.kill()


def compare(segment: Path, complete: Path, bundle: Path, work: Work, repeats: int) -> dict[str, Any]:
    """Runs both pipelines in turns; raw samples, medians and ratios (ours / diffusers) as plain data.

    Raises:
        BackendError: the pipelines' results are not the same, so that their times mean nothing.
    """
    ours, theirs = _Peer(_ours, bundle, work), _Peer(_diffusers, segment, complete, work)
    peers = {"amodal": ours, "diffusers": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    peak: dict[str, int] = {}
    results: dict[str, dict[str, Any]] = {}
    try:
        for turn in range(repeats + 1):
            for name, peer in peers.items():
                took, peak[name], results[name] = peer.clip()
                if turn:  # the first clip warms up
                    seconds[name].append(took)
            if turn == 0:
                agreement = _agreement(results["amodal"], results["diffusers"])
    finally:
        for peer in peers.values():
            peer.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["amodal"], seconds["diffusers"], strict=True)]
    return {
        "work": {
            "frames": len(work.modal),
            "size": list(work.modal.shape[1:]),
            "steps": work.steps,
            "stages": 2,
        },
        "agreement": agreement,
        "seconds": seconds,
        "median_seconds": medians,
        "time_ratio": {
            "of_medians": medians["amodal"] / medians["diffusers"],
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
        "peak_bytes": peak,
        "memory_ratio": peak["amodal"] / peak["diffusers"],
    }


def _agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    both, either = (ours["masks"] & theirs["masks"]).sum(), (ours["masks"] | theirs["masks"]).sum()
    found = {
        "latents_relative_l2": relative_l2(ours["latents"], theirs["latents"]),
        "masks_iou": float(both / either) if either else 1.0,
        "complete_mean_difference": float(np.abs(ours["complete"].astype(int) - theirs["complete"]).mean()),
    }
    if found["latents_relative_l2"] > 1e-4 or found["masks_iou"] < 0.999:
        raise BackendError(f"the two pipelines do not agree ({found}); their times are not comparable.")
    return found


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--segment", required=True, type=click.Path(exists=True, path_type=Path), help="Stage 1 checkpoint.")
@click.option("--complete", required=True, type=click.Path(exists=True, path_type=Path), help="Stage 2 checkpoint.")
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), help="Their float32 bundle, if there is one.")
@click.option("--size", default="64x128", show_default=True, help="With no --bundle.")
@click.option("--frames", default=25, show_default=True, help="With no --bundle.")
@click.option("--steps", default=25, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    segment: Path,
    complete: Path,
    bundle: Path | None,
    size: str,
    frames: int,
    steps: int,
    repeats: int,
    as_json: bool,
) -> None:
    """See the module."""
    import json

    from amodal.runtime.bundle import Bundle

    with tempfile.TemporaryDirectory() as scratch:
        if bundle is None:
            from amodal.export.bundle import export_bundle
            from amodal.export.checkpoint import read_checkpoint
            from amodal.export.plan import ExportSettings

            bundle = Path(scratch) / "bundle"
            height, width = (int(n) for n in size.split("x"))
            stages: dict[Any, Any] = {"segment": read_checkpoint(segment), "complete": read_checkpoint(complete)}
            export_bundle(bundle, stages, settings=ExportSettings((height, width), frames, "fp32"))
        manifest = Bundle(bundle).manifest
        try:
            found = compare(segment, complete, bundle, synthetic_work(manifest.frames, manifest.size, steps), repeats)
        except AmodalError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    ratio, medians, peak = found["time_ratio"], found["median_seconds"], found["peak_bytes"]
    click.echo(f"clip: {found['work']}, agreement: {found['agreement']}")
    for name in medians:
        click.echo(f"{name:<10} median {medians[name]:7.2f} s   peak {peak[name] / 1e6:7.0f} MB")
    click.echo(
        f"ratio      {ratio['of_medians']:.3f} of medians (turn by turn {ratio['min']:.3f} to {ratio['max']:.3f}), "
        f"memory {found['memory_ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
