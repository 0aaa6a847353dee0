"""How far a written graph is from its untouched torch module, on random input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from amodal.engines.compare import relative_l2
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.backends.onnxruntime.kernels import find_kernels, fused_file
from amodal.runtime.errors import ExportError

from .families.diffusion_vas.plan import Job, Size
from .families.diffusion_vas.reference import conditioner_outputs, streamed, unet_velocity
from .fusing import write_fused
from .graph.writer import Stored

Feeds = dict[str, NDArray[np.float32]]

_SIGMAS = (700.0, 5.0, 0.5, 0.002)
_TIME_IDS = (7.0, 127.0, 0.02)
_SEED = 20250611


def check_structure(file: Path) -> None:
    """Infers every shape of a graph and compares the declared ones; weights are not read.

    Raises:
        ExportError: the graph contradicts itself.
    """
    try:
        onnx.checker.check_model(str(file), full_check=False)
        onnx.shape_inference.infer_shapes(
            onnx.load(file, load_external_data=False), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the graph {file.name} is not valid: {reason}; please report it.") from error


def measure(
    job: Job, file: Path, places: Mapping[str, Stored], sequence: bool, size: Size, *, fused: bool = False
) -> float:
    """Relative L2 difference between a graph and its torch module; with its fused twin, the larger of both.

    Args:
        file: the graph as written for the bundle.
        places: where its weights lie.
        sequence: whether the context layout is `sequence`.
        size: the frames' size for which `file` was written; where `job.check_size` is another, a twin of the graph for
            that size is written beside it, with the same weights, and removed.
        fused: whether the graph gets a fused twin, which is compared as well if the kernels are there.
    """
    if job.check_size == size:
        return _difference(job, file, sequence, fused)
    twin = file.with_name(f"check_{file.name}")
    try:
        job.write(job.check_size).save(twin, shared=places)
        return _difference(job, twin, sequence, fused)
    finally:
        twin.unlink(missing_ok=True)
        fused_file(twin).unlink(missing_ok=True)
        twin.with_name(twin.name + ".data").unlink(missing_ok=True)


def _difference(job: Job, file: Path, sequence: bool, fused: bool) -> float:
    shapes = {
        entry.name: tuple(_FREE[n] if isinstance(n, str) else n for n in entry.shape)
        for entry in job.write(job.check_size).inputs
    }
    feeds = _random_feeds(shapes)
    reference = _reference(job, feeds, sequence)
    files = [file]
    if fused and find_kernels().library is not None and (twin := write_fused(file)) is not None:
        files.append(twin)
    found = [run_graph(graph, feeds) for graph in files]
    return max(relative_l2(outputs[name], value.numpy()) for outputs in found for name, value in reference.items())


_FREE = {"rows": 2, "frames": 2, "steps": len(_SIGMAS)}


def _random_feeds(shapes: Mapping[str, tuple[int, ...]]) -> Feeds:
    rng = np.random.default_rng(_SEED)
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    if "sigmas" in feeds:
        feeds["sigmas"] = np.asarray(_SIGMAS, np.float32)
    if "time_ids" in feeds:
        feeds["time_ids"] = np.asarray(_TIME_IDS, np.float32)
    return feeds


def _reference(job: Job, feeds: Feeds, sequence: bool) -> dict[str, Tensor]:
    """What the torch modules give; for `unet`, also replaces the conditioner's outputs in `feeds` by true ones."""
    inputs = {name: torch.from_numpy(value) for name, value in feeds.items()}
    network = job.network
    if job.kind == "depth":
        with torch.no_grad():
            return {"depth": network(inputs["pixels"])}
    with streamed(network.build(), network.module_weights()) as module:
        if job.kind == "unet_conditioner":
            assert job.plan is not None
            return conditioner_outputs(
                module, job.plan, inputs["context"], inputs["sigmas"], inputs["time_ids"], sequence
            )
        if job.kind == "unet":
            return _unet_reference(job, module, feeds, sequence)
        found: Any = {
            "image_encoder": lambda m: {"embeddings": m(inputs["pixels"]).image_embeds},
            "vae_encoder": lambda m: {"latents": m.encode(inputs["frames"]).latent_dist.mode()},
            "vae_decoder": lambda m: {"frames": m.decode(inputs["latents"], num_frames=_FREE["frames"]).sample},
        }[job.kind](module)
        return dict(found)


def _unet_reference(job: Job, module: Any, feeds: Feeds, sequence: bool) -> dict[str, Tensor]:
    assert job.plan is not None
    rows, frames = feeds["conditioning"].shape[:2]
    rng = np.random.default_rng(_SEED + 1)
    width = job.plan.config["cross_attention_dim"]
    context = torch.from_numpy(rng.standard_normal((rows, frames, width), np.float32))
    sigma, time_ids = torch.tensor([_SIGMAS[1]]), torch.tensor(_TIME_IDS)
    constants = conditioner_outputs(module, job.plan, context, sigma, time_ids, sequence)
    feeds["time"] = constants.pop("time_table")[0].numpy()
    feeds.update({name: value.numpy() for name, value in constants.items()})
    velocity = unet_velocity(
        module,
        torch.from_numpy(feeds["latents"]),
        torch.from_numpy(feeds["conditioning"]),
        context,
        float(sigma),
        time_ids,
        sequence,
    )
    return {"velocity": velocity}
