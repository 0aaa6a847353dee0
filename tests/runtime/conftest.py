"""What tests of running on a device share: stand-ins where the driver begins, and engines for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amodal.engines.build import BuildSettings, build_engines
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load

from ..stand_ins import StandIn, forget_stand_ins, stand_in_module


@pytest.fixture
def device() -> Any:
    """The stand-in for CuPy by itself: an `xp` whose arrays are not numpy's."""
    return stand_in_module("cupy")


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Set up first, so that it ends after `monkeypatch`, which would bring the stand-ins back."""
    yield
    forget_stand_ins()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    """The stand-ins, as if a GPU and TensorRT were here."""
    return StandIn(monkeypatch, tmp_path / "calls", here=True)


@pytest.fixture(scope="session")
def built(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of the toy bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        StandIn(patch, folder / "calls", here=True)
        build_engines(Bundle(toy_bundle), BuildSettings("tensorrt", "this", engine_dir=folder / "engines"))
    return folder / "engines"


@pytest.fixture
def engines(gpu: StandIn, built: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    shutil.copytree(built, tmp_path / "engines")
    return tmp_path / "engines"


@pytest.fixture(scope="session")
def gpu_model(toy_bundle: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The toy bundle on a stand-in GPU that tests share; `on_gpu` is for them."""
    with pytest.MonkeyPatch.context() as patch:  # for loading alone: the model keeps its stand-ins
        gpu = StandIn(patch, tmp_path_factory.mktemp("gpu") / "calls", here=True)
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
