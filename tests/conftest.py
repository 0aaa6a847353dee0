"""What tests share: the recorded case, and bundles that are exported once per session.

Torch and the exporter are imported inside the fixtures, so that tests of the runtime are collected without them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .places import SHARED

# Networks this small lose by a second thread of torch's, and tests run side by side; read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TOY_SIZE, TOY_FRAMES = (64, 64), 3


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process and those that tests start, even where pytest runs in the background.

    A shell starts what runs in the background with SIGINT ignored, and a process hands that on to its children; a
    handler it does not.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds the reference, the samples and the notes."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    return SHARED


@pytest.fixture(scope="session")
def recorded(shared: Path) -> dict[str, Any]:
    """What the authors' own pipeline drew; `reference/README.md` there has the keys."""
    file = shared / "reference" / "birdcage_64x128_seed23.npz"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def exporter() -> Any:
    """A function (folder, {stage: checkpoint}, depth=None, **settings) -> folder that makes a bundle, unchecked."""
    for module in ("torch", "diffusers", "transformers", "onnx_ir"):
        pytest.importorskip(module)
    from amodal.export.bundle import export_bundle
    from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export

    def export(folder: Path, stages: dict[str, Any], depth: Any = None, **settings: Any) -> Path:
        settings = {"precision": "fp32", "check": "none", **settings}
        export_bundle(folder, plan_export(stages, depth, ExportSettings(**settings)))
        return folder

    return export


@pytest.fixture(scope="session")
def reference_bundle(shared: Path, exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages of the recorded case in fp32, 25 frames of 64x128; not to be changed."""
    from amodal.export.checkpoints.checkpoint import read_checkpoint

    folders = {
        "segment": shared / "reference" / "diffusion-vas-amodal-segmentation",
        "complete": shared / "reference" / "diffusion-vas-content-completion",
    }
    for folder in folders.values():
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent")
    stages = {stage: read_checkpoint(folder) for stage, folder in folders.items()}
    return exporter(tmp_path_factory.mktemp("reference") / "bundle", stages, size=(64, 128))


@pytest.fixture(scope="session")
def toy_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages with random weights in fp32, 3 frames of 64x64, no depth component; not to be changed."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {stage: random_checkpoint("tiny", stage) for stage in ("segment", "complete")}
    return exporter(tmp_path_factory.mktemp("toy") / "bundle", stages, size=TOY_SIZE, frames=TOY_FRAMES)
