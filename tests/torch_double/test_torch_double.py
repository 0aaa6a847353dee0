"""The double computes what ONNX Runtime computes, and is as strict: so what runs over it has been seen to run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.compare import relative_l2
from amodal.runtime.backends.gpu import Gpu
from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load
from amodal.runtime.model import Model

from ..places import STAND_IN
from ..stand_ins import forget_stand_ins

pytestmark = pytest.mark.slow  # seconds each, and only of interest to changes of graphs and of the GPU path

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KINDS = ("image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder")
SIZES = {"rows": 2, "frames": 3, "steps": 4}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, as if it were CuPy, with which the double queues its work."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    forget_stand_ins()
    yield import_module("cupy")
    forget_stand_ins()


def backend(cupy: Any, **options: Any) -> OnnxRuntimeCudaBackend:
    from . import session

    return OnnxRuntimeCudaBackend(session, cupy, Gpu(0, "RTX 3090", "86"), CudaOptions(**options))


def inputs_of(bundle: Bundle, key: str) -> dict[str, Any]:
    rng, free = np.random.default_rng(0), {**SIZES, "frames": min(SIZES["frames"], bundle.config.frames)}
    shapes = {t.name: [free[n] if isinstance(n, str) else n for n in t.shape] for t in bundle.component(key).inputs}
    return {name: np.abs(rng.standard_normal(shape)).astype(np.float32) + 0.1 for name, shape in shapes.items()}


@pytest.fixture(scope="module", params=["cuda-fp16", "cuda-fp32", "engine-fp16"])
def exported(request: pytest.FixtureRequest, exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle in a variant and precision."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    variant, _, precision = request.param.partition("-")
    folder, stages = tmp_path_factory.mktemp("double"), {"segment": random_checkpoint("tiny", "segment")}
    more = {"size": (64, 64), "frames": 3, "variant": variant, "precision": precision}
    return Bundle(exporter(folder / "bundle", stages, **more))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_of_the_exported_graphs_gives_what_onnx_runtime_gives(
    exported: Bundle, cupy: Any, kind: str
) -> None:
    key = next(key for key, entry in exported.manifest.components.items() if entry.kind == kind)
    files, given = exported.files(key), inputs_of(exported, key)
    made = backend(cupy)
    with made.active():
        executable = made.load(exported.component(key), files)
        found = {n: made.to_host(a) for n, a in executable({n: cupy.asarray(a) for n, a in given.items()}).items()}
        executable.close()
    for name, value in run_graph(files[0], given, 1).items():
        assert relative_l2(found[name], value) < (1e-2 if exported.component(key).precision == "fp16" else 1e-4), name


def clip(bundle: Bundle) -> tuple[Any, Any]:
    frames, (height, width) = bundle.config.frames, bundle.config.size
    modal = np.zeros((frames, height, width), bool)
    modal[:, height // 4 : height // 2, width // 4 : width // 2] = True
    return modal, np.random.default_rng(3).random((frames, height, width), np.float32)


def test_a_clip_is_the_cpus_and_nothing_waits_inside_the_loop(toy_bundle: Path, cupy: Any) -> None:
    from . import session

    bundle = Bundle(toy_bundle)
    modal, depth = clip(bundle)
    with load(toy_bundle, threads=1) as cpu:
        expected = cpu.segment(modal, depth=depth, steps=3)
    inside: list[tuple[int, ...]] = []
    session.waits = 0
    with Model(bundle, backend(cupy)) as model:
        for _ in range(2):
            inside.clear()
            note = lambda *_: inside.append((cupy.waits, len(cupy.uploads), len(cupy.downloads)))  # noqa: E731
            found = model.segment(modal, depth=depth, steps=3, callback=note)
            assert np.abs(found.frames.astype(int) - expected.frames).max() <= 1
            assert len(set(inside)) == 1
    assert session.waits == 0


def test_results_left_on_the_device_are_finished(toy_bundle: Path, cupy: Any) -> None:
    """Read behind CuPy's back, as another library on another stream would."""
    bundle = Bundle(toy_bundle)
    modal, depth = clip(bundle)
    with Model(bundle, backend(cupy)) as model:
        expected = model.segment(modal, depth=depth, steps=1)
        out = {"masks": cupy.empty(expected.masks.shape, np.bool_)}
        found = model.segment(modal, depth=depth, steps=1, to="device", out=out)
        np.testing.assert_array_equal(cupy._plain(out["masks"]), expected.masks)
        np.testing.assert_array_equal(cupy._plain(found.frames), expected.frames)


def test_a_graph_belongs_to_its_thread_and_replays_its_own_addresses(toy_bundle: Path, cupy: Any) -> None:
    from . import session

    bundle = Bundle(toy_bundle)
    key = next(key for key, entry in bundle.manifest.components.items() if entry.kind == "unet")
    given = {n: cupy.asarray(a) for n, a in inputs_of(bundle, key).items()}
    asked = {"enable_cuda_graph": "1", "user_compute_stream": "7"}
    raw = session.InferenceSession(str(bundle.files(key)[0]), None, [(session.PROVIDER, asked)])
    (output,) = raw.get_outputs()
    results = [cupy.empty([SIZES.get(n, n) for n in output.shape], np.float32) for _ in range(2)]

    def run(place: int) -> None:
        binding, options = raw.io_binding(), session.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "1")
        for name, array in given.items():
            binding.bind_input(name, "cuda", 0, array.dtype, list(array.shape), array.data.ptr)
        array = results[place]
        binding.bind_output(output.name, "cuda", 0, array.dtype, list(array.shape), array.data.ptr)
        raw.run_with_iobinding(binding, options)  # and waits, as nothing says that it must not

    before = len(session.recorded)
    run(0)
    run(1)
    assert len(session.recorded) == before + 1
    assert not np.isfinite(cupy._plain(results[1])).any(), "the recording writes where it was recorded"
    thread = threading.Thread(target=run, args=(1,))
    thread.start()
    thread.join()
    assert len(session.recorded) == before + 2
    np.testing.assert_array_equal(cupy._plain(results[1]), cupy._plain(results[0]))
    assert sys.modules["cupy"] is cupy
