"""The recorded cases of the authors' code, and their networks."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.places import SHARED

from amodal.export.families.sameo.checkpoint import SameoCheckpoint, read_sameo
from amodal.export.families.sameo.network import NetworkConfig, Sameo
from amodal.export.families.sameo.plan import SameoSettings, plan_sameo
from amodal.export.fusing import can_be_fused, write_fused
from amodal.runtime.backends.onnxruntime.graph import fastest_form, session_options

FOLDER = SHARED / "sameo"
CHECKPOINT = FOLDER / "efficientsam_small.pt"
Arrays = dict[str, NDArray[Any]]


def recorded(name: str) -> Arrays:
    """Returns a recorded case."""
    with np.load(FOLDER / f"{name}.npz") as case:
        return dict(case)


def small() -> SameoCheckpoint:
    """Returns the recorded small checkpoint."""
    return read_sameo(CHECKPOINT)


def seeded_ti() -> SameoCheckpoint:
    """Returns EfficientSAM-Ti with the recorded case's weights, drawn by the rule in the README beside it."""
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in Sameo(NetworkConfig()).state_dict().items()}
    return SameoCheckpoint(
        NetworkConfig(), {name: torch.from_numpy(_drawn(name, shape)) for name, shape in shapes.items()}, "seeded"
    )


def _drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    w = np.random.default_rng([11, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
    if name.endswith("gaussian_matrix"):
        return w
    if any(mark in name for mark in ("norm", ".neck.1", ".neck.3", "upscaling_layers.0.1")):
        return np.float32(0.1) * w + np.float32(name.endswith("weight"))
    plain = not any(mark in name for mark in ("token", "points", "pos_embed"))
    if len(shape) > 1 and "embed" not in name.split(".")[-2] and plain:
        fan = shape[0] if "upscaling" in name else int(np.prod(shape[1:]))
        gain = 3 if any(mark in name for mark in (".qkv.", "q_proj", "k_proj")) else 1
        return (gain * w / np.sqrt(fan)).astype(np.float32)
    return np.float32(0.5) * w


def prepared(case: Arrays, size: tuple[int, int], slots: int = 6) -> tuple[Arrays, Arrays]:
    """Returns a case's inputs of the encoder's graph, and its prompts for the decoder's, scaled as the authors do."""
    image = torch.from_numpy(case["image"]).float().permute(2, 0, 1)[None] / 255
    pixels = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False)
    height, width = case["image"].shape[:2]
    given = case["points"][0]
    points = np.full((len(given), slots, 2), -1, np.float32)
    labels = np.full((len(given), slots), -1, np.float32)
    scaled = given * np.array([size[1] / width, size[0] / height], np.float32)
    points[:, : given.shape[1]] = np.where(given < 0, -1, scaled)
    labels[:, : given.shape[1]] = case["labels"][0]
    return {"pixels": pixels.numpy()}, {"prompts": points, "labels": labels}


def run_graphs(checkpoint: SameoCheckpoint, case: Arrays, folder: Path, settings: SameoSettings) -> Arrays:
    """Writes a checkpoint's graphs and runs them on a case, as a bundle's user does."""
    size = (checkpoint.config.height, checkpoint.config.width)
    encode, decode = prepared(case, size)
    outputs: Arrays = {}
    for component, feeds in zip(plan_sameo(checkpoint, settings).components, (encode, decode), strict=True):
        file = folder / f"{component.key}.onnx"
        graph = component.write(component.size)
        graph.save(file)
        if can_be_fused(component.precision, graph.variant.name):
            write_fused(file)
        ort, options = session_options(1, optimise=True)
        session = ort.InferenceSession(str(fastest_form(file)), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        needed = {i.name for i in session.get_inputs()}
        shared = {name: value for name, value in outputs.items() if name in needed}
        outputs |= dict(zip(names, session.run(names, feeds | shared), strict=True))
    return outputs
