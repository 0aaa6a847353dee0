"""Bundles of SAMEO: a toy with drawn weights, and the small checkpoint of which the authors' results are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.loading import load
from amodal.runtime.scenes import make_scene

PICTURE = (90, 150)


def export(folder: Path, checkpoint: Any, **settings: Any) -> Path:
    from amodal.export.bundle import export_bundle
    from amodal.export.families.sameo.plan import SameoSettings, plan_sameo

    export_bundle(folder, plan_sameo(checkpoint, SameoSettings(precision="fp32", check="none", **settings)))
    return folder


@pytest.fixture(scope="session")
def sameo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "onnx_ir", "onnxruntime"):
        pytest.importorskip(module)
    from amodal.export.families.sameo.checkpoint import random_checkpoint

    return export(tmp_path_factory.mktemp("sameo") / "toy", random_checkpoint("tiny"), boxes=4)


@pytest.fixture(scope="session")
def small_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "onnx_ir", "onnxruntime"):
        pytest.importorskip(module)
    file = shared / "sameo" / "efficientsam_small.pt"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    from amodal.export.families.sameo.checkpoint import read_sameo

    return export(tmp_path_factory.mktemp("sameo") / "small", read_sameo(file))


@pytest.fixture(scope="module")
def model(sameo_bundle: Path) -> Iterator[Any]:
    with load(sameo_bundle) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def picture() -> Any:
    return make_scene(3, 1, PICTURE).frames[0]


@pytest.fixture(scope="module")
def boxes() -> Any:
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 0.6, (10, 2)) * PICTURE[::-1]
    return np.concatenate([corners, corners + rng.uniform(5, 60, (10, 2))], axis=1)
