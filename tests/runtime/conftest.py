"""What tests of running on a device share: stand-ins where the driver begins, and engines for them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amodal.engines import build
from amodal.engines.build import BuildSettings, build_engines
from amodal.runtime.bundle.reading import Bundle
from amodal.runtime.model import load

from ..places import STAND_IN


@pytest.fixture
def device() -> Any:
    """The stand-in for CuPy by itself: an `xp` whose arrays are not numpy's."""
    spec = importlib.util.spec_from_file_location("stand_in_cupy", STAND_IN / "cupy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Gpu:
    """The stand-ins, as if a GPU and TensorRT were here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._calls = monkeypatch, folder / "calls"
        monkeypatch.setenv("PYTHONPATH", f"{STAND_IN}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.syspath_prepend(str(STAND_IN))
        monkeypatch.setattr(build, "gpus", lambda: [{"name": "RTX 3090", "compute_cap": "8.6"}])
        self.set()

    def set(self, version: str = "10.13.2", trouble: str | None = None, **more: Any) -> None:
        """`more`: `rtx`, as TensorRT for RTX is; `invalid`, what it says of engines; `driver`, whose kernels it has."""
        asked = {"version": version, "trouble": trouble, "calls": str(self._calls), **more}
        self._patch.setenv("STAND_IN", json.dumps(asked))
        for name in ("tensorrt", "cupy"):  # not by the patch, which would bring the stand-ins back at its end
            sys.modules.pop(name, None)

    @property
    def calls(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    @property
    def waits(self) -> int:
        return int(sys.modules["cupy"].waits)


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Set up first, so that it ends after `monkeypatch`, which would bring the stand-ins back."""
    yield
    for name in ("tensorrt", "cupy"):
        sys.modules.pop(name, None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    return Gpu(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def built(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of the toy bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        Gpu(patch, folder)
        build_engines(Bundle(toy_bundle), BuildSettings("tensorrt", "this", engine_dir=folder / "engines"))
    return folder / "engines"


@pytest.fixture
def engines(gpu: Gpu, built: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    shutil.copytree(built, tmp_path / "engines")
    return tmp_path / "engines"


@pytest.fixture(scope="session")
def gpu_model(toy_bundle: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The toy bundle on a stand-in GPU that tests share; `on_gpu` is for them."""
    with pytest.MonkeyPatch.context() as patch:  # for loading alone: the model keeps its stand-ins
        gpu = Gpu(patch, tmp_path_factory.mktemp("gpu"))
        model = load(toy_bundle, "tensorrt", engine_dir=built)
    with model:
        yield model, gpu


@pytest.fixture
def on_gpu(gpu_model: Any) -> Iterator[Any]:
    """That model, with nothing noted yet of what the stand-in notes."""
    model, _ = gpu_model
    cupy = model.backend.xp
    yield model
    for notes in (cupy.uploads, cupy.downloads, cupy.events, cupy.freed, cupy.elsewhere):
        notes.clear()
