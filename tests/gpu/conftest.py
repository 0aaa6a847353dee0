"""Where the tests of a GPU run: on each backend that executes here, and without one, on stand-ins for the driver.

Every test is generated for both stand-ins, which run anywhere, and for each backend on a GPU, marked `gpu`; a test
that is itself marked `gpu` needs real memory or real streams and gets no stand-in. One process can hold one TensorRT:
`AMODAL_GPU_BACKEND=tensorrt` chooses. `AMODAL_GPU_BUNDLE` is a bundle to run instead of the default one.
`AMODAL_GPU_BACKEND=torch` runs the adapter for ONNX Runtime over a double that computes with torch. On a GPU without
onnxruntime-gpu it shows adapter, streams and delivery at work; without a GPU it is the stand-in for ONNX Runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime import backends
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.diagnosis import gpus
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load
from amodal.runtime.model import Model

from ..stand_ins import StandIn, forget_stand_ins

ASKED = os.environ.get("AMODAL_GPU_BACKEND", "")
CHOICES = {name: device for name, device in backends.gpu_choices() if ASKED in ("", name)} if ASKED or gpus() else {}
TORCH = "torch"
if ASKED == TORCH:
    CHOICES[TORCH] = "cuda"
STAND_INS = {"stand-in": "onnxruntime", "stand-in-tensorrt": "tensorrt"}
ENGINES = ("tensorrt_rtx", "tensorrt")


@dataclass
class Here:
    """A backend on a GPU, or its stand-in, and a bundle to run.

    Attributes:
        real: whether there is a GPU.
        engines: folder of the engines; None for a backend that runs graphs.
    """

    name: str
    device: str | None
    bundle: Bundle
    real: bool
    xp: Any
    engines: Path | None = None
    opened: list[Model] = field(default_factory=list)

    def backend(self, **options: Any) -> Any:
        """A backend of its own; `options` as in `CudaOptions`, or for engines, of `TensorRTBackend`."""
        if self.engines is not None:
            from amodal.runtime.backends.gpu import find_gpu
            from amodal.runtime.backends.tensorrt import TensorRTBackend

            return TensorRTBackend(
                self.name, import_module(self.name), self.xp, find_gpu(self.xp, self.name), **options
            )
        from amodal.runtime.backends.gpu import Gpu, find_gpu
        from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend

        found = find_gpu(self.xp, self.name) if self.real else Gpu(0, "RTX 3090", "86")
        if self.real and self.name != TORCH:
            import onnxruntime as library
        else:
            from ..torch_double import session as library  # type: ignore[no-redef]
        return OnnxRuntimeCudaBackend(library, self.xp, found, CudaOptions(**options))

    def load(self, memory: Any = "resident", **options: Any) -> Model:
        """A model on it, closed with the test."""
        if self.engines is not None:
            wrap: Any = (lambda made: self.backend(**options)) if options else None
            model = load(self.bundle.path, self.name, memory=memory, engine_dir=self.engines, verify=False, wrap=wrap)
        elif self.real and self.name != TORCH and not options:
            model = load(self.bundle.path, self.name, device=self.device, memory=memory, verify=False)
        else:
            model = Model(self.bundle, self.backend(**options), memory, verify=False)
        self.opened.append(model)
        return model

    def files(self, component: str) -> list[Path]:
        """What a backend loads a component from."""
        if self.engines is None:
            return self.bundle.files(component)
        from amodal.runtime.builds.finding import find_build

        profiles = {component: self.bundle.family.profiles(self.bundle.manifest, component)}
        return find_build(self.bundle, self.engines, self.name, profiles).files(component)


@dataclass(frozen=True)
class Clip:
    """What a run is given: visible masks bool [T, H, W] and relative depth float32 [T, H, W]."""

    modal: Any
    depth: Any


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "here" not in metafunc.fixturenames:
        return
    real_alone = metafunc.definition.get_closest_marker("gpu") is not None
    rows: list[Any] = [pytest.param(name, marks=pytest.mark.gpu, id=name) for name in CHOICES]
    if not rows:
        rows = [pytest.param(None, marks=(pytest.mark.gpu, pytest.mark.skip(reason="no GPU here")), id="gpu")]
    if not real_alone:
        rows = [*(pytest.param(name, id=name) for name in STAND_INS), *rows]
    metafunc.parametrize("here", rows, indirect=True, scope="module")


@pytest.fixture(scope="module")
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """The place that a test runs at."""
    name: str = request.param
    if name in STAND_INS:
        with pytest.MonkeyPatch.context() as patch:
            bundle = Bundle(request.getfixturevalue("toy_bundle"))
            made = _stand_in(STAND_INS[name], patch, bundle, tmp_path_factory)
            yield made
            _close(made)
        forget_stand_ins()
        return
    others = [other for other in ENGINES if other in sys.modules and other != name]
    if name in ENGINES and others:
        pytest.skip(f"{others[0]} is loaded in this process; AMODAL_GPU_BACKEND={name} runs this one")
    if name == TORCH:
        pytest.importorskip("torch")
        pytest.importorskip("cupy")
    elif not (found := backends.availability(name, CHOICES[name])).usable:
        pytest.skip(found.reason)
    bundle = Bundle(os.environ.get("AMODAL_GPU_BUNDLE", "default"))
    made = Here(name, CHOICES[name], bundle, True, import_module("cupy"))
    if name in ENGINES:
        made.engines = _build(bundle, name, tmp_path_factory.mktemp("engines"))  # type: ignore[arg-type]
    yield made
    _close(made)


def _stand_in(name: str, patch: pytest.MonkeyPatch, bundle: Bundle, folders: pytest.TempPathFactory) -> Here:
    StandIn(patch, folders.mktemp("stand-in") / "calls", here=True)
    made = Here(name, None, bundle, False, import_module("cupy"))
    if name in ENGINES:
        made.engines = _build(bundle, name, folders.mktemp("engines"))  # type: ignore[arg-type]
    return made


def _close(made: Here) -> None:
    for model in made.opened:
        model.close()


def _build(bundle: Bundle, name: EngineBackend, folder: Path) -> Path:
    from amodal.engines.build import BuildSettings, build_engines

    build_engines(bundle, BuildSettings(name, "this", engine_dir=folder))
    return folder


@pytest.fixture(scope="module")
def model(here: Here) -> Model:
    """One that stays loaded; tests leave it as it is."""
    return here.load()


@pytest.fixture(scope="module")
def clip(here: Here) -> Clip:
    config = here.bundle.config
    frames, (height, width) = config.frames, config.size
    modal = np.zeros((frames, height, width), bool)
    for i in range(frames):
        modal[i, height // 4 : 3 * height // 4, width // 4 + i : width // 2 + i] = True
    return Clip(modal, np.random.default_rng(3).random((frames, height, width), np.float32))
