"""ONNX Runtime on a GPU, with stand-ins where the driver begins: numpy's memory, and the CPU provider, bound alike.

What only a GPU can show is in `tests/gpu`.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from amodal.runtime import backends
from amodal.runtime.backends.gpu import Gpu, find_gpu
from amodal.runtime.backends.onnxruntime import cuda as onnxruntime_cuda
from amodal.runtime.backends.onnxruntime.bound import _MOST_GRAPHS, Place, reason_of
from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend
from amodal.runtime.backends.onnxruntime.library import OLDEST_FOR_CUDA
from amodal.runtime.builds.store import graph_hash
from amodal.runtime.errors import (
    BackendError,
    BackendUnavailableError,
    BundleCorruptError,
    InputError,
    MemoryBudgetError,
)
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load
from amodal.runtime.memory.choice import BackendFacts, MemoryRequest, plan_model
from amodal.runtime.memory.recorded import ComponentMemory, MemoryRecord, write_memory
from amodal.runtime.model import Model

from ....places import ROOT, STAND_IN

ON_CPU = Place("CPUExecutionProvider", "cpu", 0, "cpu:0")
GPU = Gpu(0, "RTX 3090", "86")


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    """The stand-in for CuPy; gone with this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_IN))
        sys.modules.pop("cupy", None)
        yield import_module("cupy")
    sys.modules.pop("cupy", None)


@pytest.fixture(scope="module")
def bundle(toy_bundle: Path) -> Bundle:
    return Bundle(toy_bundle)


def backend(cupy: Any, **settings: Any) -> OnnxRuntimeCudaBackend:
    return OnnxRuntimeCudaBackend(onnxruntime, cupy, GPU, place=ON_CPU, **settings)


def component(made: OnnxRuntimeCudaBackend, bundle: Bundle, key: str) -> Any:
    with made.active():
        return made.load(bundle.component(key), bundle.files(key))


def unet_inputs(bundle: Bundle, rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    entry = bundle.component("segment_unet")
    shapes = {t.name: [rows if isinstance(n, str) else n for n in t.shape] for t in entry.inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def shrinks(options: Any) -> bool:
    """Whether a run gives its activations back."""
    try:
        return bool(options.get_run_config_entry("memory.enable_memory_arena_shrinkage"))
    except RuntimeError:  # how ONNX Runtime says that there is no such entry
        return False


@cache
def session_of(file: Path) -> Any:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def reference(bundle: Bundle, key: str, inputs: dict[str, Any]) -> dict[str, Any]:
    session = session_of(bundle.files(key)[0])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def clip(bundle: Bundle) -> tuple[Any, Any]:
    frames, (height, width) = bundle.config.frames, bundle.config.size
    modal = np.zeros((frames, height, width), bool)
    modal[:, 20:44, 16:40] = True
    return modal, np.random.default_rng(3).random((frames, height, width), np.float32)


@pytest.fixture(scope="module")
def shared_backend(cupy: Any) -> OnnxRuntimeCudaBackend:
    return backend(cupy)


@pytest.fixture(scope="module")
def model(shared_backend: OnnxRuntimeCudaBackend, bundle: Bundle) -> Iterator[Model]:
    with Model(bundle, shared_backend, verify=False) as model:
        yield model


@pytest.fixture(scope="module")
def loaded(shared_backend: OnnxRuntimeCudaBackend, bundle: Bundle) -> dict[str, Any]:
    return {key: component(shared_backend, bundle, key) for key in ("segment_unet", "vae_decoder")}


@pytest.fixture
def unet(loaded: dict[str, Any]) -> Any:
    """With nothing captured yet."""
    loaded["segment_unet"]._captured.clear()
    return loaded["segment_unet"]


@pytest.fixture
def decoder(loaded: dict[str, Any]) -> Any:
    return loaded["vae_decoder"]


def test_a_clip_is_the_cpu_runs(model: Model, bundle: Bundle) -> None:
    modal, depth = clip(bundle)
    with load(bundle.path, threads=1, verify=False) as on_cpu:
        expected = on_cpu.segment(modal, depth=depth, steps=2)
    found = model.segment(modal, depth=depth, steps=2)
    assert (found.masks == expected.masks).mean() > 0.9999
    assert np.abs(found.frames.astype(int) - expected.frames).max() <= 1


@pytest.mark.parametrize("graph", [True, False])
def test_shapes_may_change_from_call_to_call(
    cupy: Any, shared_backend: Any, bundle: Bundle, unet: Any, monkeypatch: pytest.MonkeyPatch, graph: bool
) -> None:
    monkeypatch.setattr(unet, "_graph", graph)
    with shared_backend.active():
        for seed, rows in enumerate((1, 2, 1)):
            inputs = unet_inputs(bundle, rows, seed)
            (expected,) = reference(bundle, "segment_unet", inputs).values()
            (found,) = unet({n: cupy.asarray(v) for n, v in inputs.items()}).values()
            np.testing.assert_allclose(shared_backend.to_host(found), expected, atol=2e-4)
    assert len(unet._captured) == (2 if graph else 0)


def test_results_of_a_graph_outlive_the_next_call(cupy: Any, shared_backend: Any, bundle: Bundle, unet: Any) -> None:
    made = shared_backend
    with made.active():
        first, again, second = (
            made.to_host(unet({n: cupy.asarray(v) for n, v in unet_inputs(bundle, 1, seed).items()})["velocity"])
            for seed in (1, 1, 2)
        )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0.1


def test_a_graph_keeps_its_addresses_and_others_take_the_callers(
    cupy: Any, shared_backend: Any, bundle: Bundle, unet: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[str, int]] = []
    real = onnxruntime.IOBinding.bind_input

    def bind(self: Any, name: str, device: str, number: int, kind: Any, shape: Any, pointer: int) -> None:
        bound.append((name, pointer))
        real(self, name, device, number, kind, shape, pointer)

    monkeypatch.setattr(onnxruntime.IOBinding, "bind_input", bind)
    with shared_backend.active():
        for seed in range(3):
            unet({n: cupy.asarray(v) for n, v in unet_inputs(bundle, 1, seed).items()})
        assert len(bound) == len(bundle.component("segment_unet").inputs)  # bound once, for three calls
        latents = cupy.asarray(np.zeros((2, 4, 8, 8), np.float32))
        decoder({"latents": latents})
    assert bound[-1] == ("latents", latents.data.ptr)


def test_what_lies_badly_is_copied_first(cupy: Any, shared_backend: Any, decoder: Any) -> None:
    made = shared_backend
    values = np.random.default_rng(2).standard_normal((4, 4, 8, 8)).astype(np.float32)
    with made.active():
        whole = made.to_host(decoder({"latents": cupy.asarray(values[1:2])})["frames"])
        view = made.to_host(decoder({"latents": cupy.asarray(values)[1:2]})["frames"])
        crossed = cupy.asarray(np.ascontiguousarray(values[1:2].swapaxes(2, 3))).swapaxes(2, 3)
        turned = made.to_host(decoder({"latents": crossed})["frames"])
        doubled = made.to_host(decoder({"latents": values[1:2].astype(np.float64)})["frames"])
    for found in (view, turned, doubled):
        np.testing.assert_array_equal(found, whole)


def test_more_shapes_than_graphs_still_run(cupy: Any, shared_backend: Any, bundle: Bundle, unet: Any) -> None:
    with shared_backend.active():
        for rows in range(1, _MOST_GRAPHS + 3):
            inputs = unet_inputs(bundle, rows)
            assert unet({n: cupy.asarray(v) for n, v in inputs.items()})["velocity"].shape[0] == rows
    assert len(unet._captured) == _MOST_GRAPHS


def test_map_runs_all_and_gives_activations_back_with_the_last(
    shared_backend: Any, bundle: Bundle, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    class Options(onnxruntime.RunOptions):
        def __init__(self) -> None:
            super().__init__()
            asked.append({})

        def add_run_config_entry(self, name: str, value: str) -> None:
            asked[-1][name] = value
            super().add_run_config_entry(name, value)

    monkeypatch.setattr(onnxruntime, "RunOptions", Options)
    made = shared_backend
    rng = np.random.default_rng(4)
    batches = [{"latents": rng.standard_normal((n, 4, 8, 8)).astype(np.float32)} for n in (3, 3, 2)]
    with made.active():
        found = [made.to_host(r["frames"]) for r in decoder.map(batches)]
    for result, batch in zip(found, batches, strict=True):
        np.testing.assert_allclose(result, reference(bundle, "vae_decoder", batch)["frames"], atol=2e-4)
    assert ["memory.enable_memory_arena_shrinkage" in options for options in asked] == [False, False, True]
    assert all(options["disable_synchronize_execution_providers"] == "1" for options in asked)


def test_what_is_called_again_and_again_keeps_its_activations(
    cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backend(cupy, options=CudaOptions(cuda_graph=False))
    unet = component(made, bundle, "segment_unet")
    assert not shrinks(unet._options(None, last=True))
    assert shrinks(component(made, bundle, "vae_decoder")._options(None, last=True))


def test_graphs_run_in_a_thread_of_their_own(
    cupy: Any, shared_backend: Any, bundle: Bundle, unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever thread calls, since another one would record again."""
    real, seen = unet._session, []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def run_with_iobinding(self, *arguments: Any) -> None:
            seen.append(threading.get_ident())
            real.run_with_iobinding(*arguments)

    monkeypatch.setattr(unet, "_session", Watched())
    inputs = unet_inputs(bundle, 1)
    (expected,) = reference(bundle, "segment_unet", inputs).values()

    def call() -> Any:
        with shared_backend.active():
            return shared_backend.to_host(unet({n: cupy.asarray(v) for n, v in inputs.items()})["velocity"])

    found = [call()]
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(call).result())
    for velocity in found:
        np.testing.assert_allclose(velocity, expected, atol=2e-4)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert len(unet._captured) == 1


def test_a_wrong_shape_is_named(shared_backend: Any, decoder: Any) -> None:
    made = shared_backend
    with (
        made.active(),
        pytest.raises(BackendError, match=r"takes latents as \['frames', 4, 8, 8\], not \[1, 4, 4, 4\]"),
    ):
        decoder({"latents": np.zeros((1, 4, 4, 4), np.float32)})


def test_a_closed_component_says_so_and_gives_its_weights_back(cupy: Any, bundle: Bundle) -> None:
    made = backend(cupy)
    decoder = component(made, bundle, "vae_decoder")
    assert list(made._held.values()) == [bundle.component("vae_decoder").loaded_bytes]  # not the CPU's twin
    decoder.close()
    decoder.close()
    assert not made._held
    with made.active(), pytest.raises(BackendError, match="closed"):
        decoder({"latents": np.zeros((1, 4, 8, 8), np.float32)})


def test_a_damaged_graph_is_named(cupy: Any, bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "vae_decoder.onnx"
    broken.write_bytes(b"no graph")
    made = backend(cupy)
    with made.active(), pytest.raises(BundleCorruptError, match=r"vae_decoder.onnx on the RTX 3090"):
        made.load(bundle.component("vae_decoder"), [broken])


def test_too_little_memory_refuses_before_loading(cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryBudgetError, match=r"unet needs 13\.\d MB .* 5\.0 MB are left of the 0\.005 GB allowed"):
        component(backend(cupy, vram=5_000_000), bundle, "segment_unet")
    monkeypatch.setattr(cupy, "free_bytes", 1_000_000)
    with pytest.raises(MemoryBudgetError, match=r"1\.0 MB are free on the RTX 3090"):
        component(backend(cupy), bundle, "segment_unet")


def test_weights_that_are_loaded_count(cupy: Any, bundle: Bundle) -> None:
    made = backend(cupy, vram=14_000_000)
    loaded = component(made, bundle, "vae_decoder")
    with pytest.raises(MemoryBudgetError, match=r"left of the 0\.014 GB allowed"):
        component(made, bundle, "complete_unet")
    loaded.close()
    component(made, bundle, "complete_unet")


def test_memory_that_runs_out_is_said_and_recovered_from(
    shared_backend: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared_backend
    batch = {"latents": np.zeros((1, 4, 8, 8), np.float32)}

    def fail(*arguments: Any) -> None:
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 8192")

    with monkeypatch.context() as patch, made.active():
        patch.setattr(decoder._session, "run_with_iobinding", fail)
        with pytest.raises(MemoryBudgetError, match=r"ran out on the RTX 3090 \(component vae_decoder: BFCArena"):
            decoder(batch)
    with made.active():
        assert decoder(batch)["frames"].shape == (1, 3, 64, 64)


def test_the_callers_stream_waits_and_is_waited_for(cupy: Any, bundle: Bundle) -> None:
    class Stream(cupy.cuda.Stream):
        def __init__(self, number: int, log: list[Any]) -> None:
            super().__init__(ptr=number)
            self.log = log

        def record(self) -> Any:
            self.log.append(("record", self.ptr))
            return self.ptr

        def wait_event(self, event: Any) -> None:
            self.log.append(("wait", self.ptr, event))

    log: list[Any] = []
    made = backend(cupy)
    made._stream = Stream(77, log)
    theirs = Stream(5, log)
    theirs.__enter__()
    with made.active():
        assert cupy.cuda.get_current_stream().ptr == 77
        with made.active():
            pass
    theirs.__exit__()
    assert log == [("record", 5), ("wait", 77, 5), ("record", 77), ("wait", 5, 77)]


def test_nothing_waits_for_the_device_inside_the_loop(cupy: Any, model: Model, bundle: Bundle) -> None:
    modal, depth = clip(bundle)
    model.segment(modal, depth=depth, steps=1)
    inside: list[int] = []
    model.segment(modal, depth=depth, steps=2, callback=lambda *_: inside.append(cupy.waits))
    assert len(set(inside)) == 1


def test_the_options_of_the_provider(cupy: Any, bundle: Bundle) -> None:
    made = OnnxRuntimeCudaBackend(onnxruntime, cupy, Gpu(1, "RTX 3090", "86"), vram=10**9)
    entry = bundle.component("segment_unet")
    options = made._provider_options(entry, True, 5)
    assert options["user_compute_stream"] == str(made._stream.ptr)
    assert options["device_id"] == "1"
    assert options["enable_cuda_graph"] == "1"
    assert options["gpu_mem_limit"] == "5"
    assert options["prefer_nhwc"] == "0"  # float32
    half = entry.model_copy(update={"precision": "fp16"})
    assert made._provider_options(half, False, None)["prefer_nhwc"] == "1"
    assert all(isinstance(value, str) for value in options.values())
    assert made.describe()["device"] == "cuda:1"


def test_what_onnxruntime_says_is_told_without_places_and_hosts() -> None:
    said = (
        "/src/core/cuda_info.cc:63 static Info FromProviderOptions(const Options&) [ONNXRuntimeError] : 1 : FAIL : "
        'options_utils.h:187 Parse Failed to parse provider option "device_id": CUDA failure 35: driver too old '
        "; GPU=-1 ; hostname=robot ; file=/src/core/cuda_info.cc ; line=70 ; "
    )
    expected = 'Failed to parse provider option "device_id": CUDA failure 35: driver too old'
    assert reason_of(RuntimeError(said)) == expected
    assert reason_of(RuntimeError("out of tea\n\nTraceback")) == "out of tea"
    said = (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /src/cuda_call.cc:154 "
        "std::conditional_t<THRW, void, Status> onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = "
        "cudaError; bool THRW = true] CUDA failure 2: out of memory ; GPU=0 ; hostname=robot"
    )
    assert reason_of(RuntimeError(said)) == "Exception during initialization: CUDA failure 2: out of memory"
    said = (
        "Error in execution: Non-zero status code returned while running Conv node. Name:'up/Conv_3' Status Message: "
        "/src/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
        "Failed to allocate memory for requested buffer of size 8"
    )
    assert reason_of(RuntimeError(said)) == "node up/Conv_3: Failed to allocate memory for requested buffer of size 8"


class Pretended:
    """onnxruntime, as if its CUDA provider were built in."""

    __version__, __file__, cuda_version = "1.31.1", onnxruntime.__file__, "13.0"

    def __init__(self, works: bool = True, refused: str = "", on_cpu: Sequence[str] = ()) -> None:
        self._works, self._refused, self._on_cpu, self.made = works, refused, on_cpu, []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        print("not found")

    def InferenceSession(self, model: Any, settings: Any, providers: Any, enable_fallback: int) -> Any:  # noqa: N802
        (name, options), _ = providers
        self.made.append(options)
        if self._refused and options.get("enable_cuda_graph") == "1":
            raise RuntimeError(self._refused)
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        if self._works:
            session.get_providers = lambda: [name, "CPUExecutionProvider"]  # type: ignore[method-assign]
        nodes = [SimpleNamespace(op_type=kind) for kind in self._on_cpu]
        part = SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes)
        session.get_provider_graph_assignment_info = lambda: [part]  # type: ignore[method-assign]
        return session


@pytest.fixture
def pretended(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**how: Any) -> Pretended:
        stand_in = Pretended(**how)
        monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
        return stand_in

    return put


def test_a_gpu_that_works_is_usable(pretended: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pretended()
    found = backends.availability("onnxruntime", "cuda")
    assert found.usable
    assert found.detail == "onnxruntime 1.31.1, CUDAExecutionProvider, on RTX 3090 (sm86)"
    assert capsys.readouterr().out == ""
    assert isinstance(backends.create("onnxruntime", device="cuda:1", vram=10**9), OnnxRuntimeCudaBackend)


def test_a_silent_fallback_to_the_cpu_is_an_error(pretended: Any, bundle: Bundle, cupy: Any) -> None:
    ort = pretended(works=False)
    found = backends.availability("onnxruntime", "cuda")
    assert not found.usable
    assert "does not start its CUDA provider on the RTX 3090" in found.reason
    assert 'pip install "amodal[cuda]"' in found.reason
    made = OnnxRuntimeCudaBackend(ort, cupy, GPU)
    with made.active(), pytest.raises(BackendUnavailableError, match="does not start"):
        made.load(bundle.component("vae_decoder"), bundle.files("vae_decoder"))


def test_a_graph_that_cannot_be_captured_runs_without(pretended: Any, bundle: Bundle, cupy: Any) -> None:
    ort = pretended(refused="This session cannot use the graph capture feature as requested by the user")
    made = OnnxRuntimeCudaBackend(ort, cupy, GPU)
    unet = component(made, bundle, "segment_unet")
    assert [options["enable_cuda_graph"] for options in ort.made] == ["1", "0"]
    assert not unet._graph
    assert "cannot use the graph capture" in made.describe()["cuda_graph_refused"]


def test_nodes_that_would_run_on_the_cpu_are_counted_by_component(pretended: Any, bundle: Bundle, cupy: Any) -> None:
    made = OnnxRuntimeCudaBackend(pretended(on_cpu=["Concat", "Shape", "Concat"]), cupy, GPU)
    component(made, bundle, "vae_decoder")
    assert made.describe()["vae_decoder_nodes_on_cpu"] == "2 Concat, 1 Shape"  # sizes, which are wanted there
    made = OnnxRuntimeCudaBackend(pretended(on_cpu=["Concat", "Einsum"]), cupy, GPU)
    with pytest.raises(BackendError, match=r"component vae_decoder: .* has no CUDA kernels for 1 Einsum, and would"):
        component(made, bundle, "vae_decoder")
    assert not made._held


@pytest.mark.parametrize("version", ["1.23.2", "1.31.0"])
def test_an_onnxruntime_that_replays_wrong_values_is_refused(
    pretended: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended(), "__version__", version)
    with pytest.raises(BackendUnavailableError, match=rf"onnxruntime-gpu {version} is too old: before 1.31.1, CUDA gr"):
        backends.create("onnxruntime", device="cuda")


@pytest.mark.parametrize("version", ["1.31.1", "1.32", "2.0.0rc1"])
def test_later_ones_are_not(pretended: Any, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretended(), "__version__", version)
    backends.create("onnxruntime", device="cuda")


def test_the_least_version_is_the_one_that_pip_installs() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'"onnxruntime-gpu[cuda,cudnn]>={OLDEST_FOR_CUDA}"' in text


def test_a_build_for_the_cpu_is_named(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(BackendUnavailableError, match=r"onnxruntime [\d.]+ is for the CPU; uninstall it, then"):
        backends.create("onnxruntime", device="cuda")
    both = ["onnxruntime 1.31.0", "onnxruntime-gpu 1.31.0"]
    monkeypatch.setattr(onnxruntime_cuda, "installed_distributions", lambda: both)
    with pytest.raises(BackendUnavailableError, match=r"installed over each other; uninstall all of them"):
        backends.create("onnxruntime", device="cuda")


def test_a_driver_that_is_too_old_is_told_from_none(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise cupy.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fail)
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 12080)
    with pytest.raises(BackendUnavailableError, match=r"too old \(it supports CUDA 12.8, CuPy here needs 13.0\)"):
        find_gpu(cupy, "onnxruntime")
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 0)
    with pytest.raises(BackendUnavailableError, match="there is no NVIDIA driver here"):
        find_gpu(cupy, "onnxruntime")


def test_a_driver_too_old_for_onnxruntime_alone_is_named(
    pretended: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 12080)
    with pytest.raises(BackendUnavailableError, match=r"12.8, onnxruntime-gpu 1.31.1 needs 13.0\); .* 580 or later"):
        backends.create("onnxruntime", device="cuda")
    assert not backends.availability("onnxruntime", "cuda").usable


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:3"])
def test_unknown_devices_are_named(pretended: Any, device: str) -> None:
    pretended()
    with pytest.raises(BackendUnavailableError, match=device.rpartition(":")[2]):
        backends.create("onnxruntime", device=device)


def test_threads_are_for_a_cpu(pretended: Any) -> None:
    pretended()
    with pytest.raises(InputError, match="`threads`"):
        backends.create("onnxruntime", device="cuda", threads=2)


def test_a_limit_on_gpu_memory_is_for_graphs_that_run_there(bundle: Bundle) -> None:
    def plan(on_gpu: bool = False, **request: Any) -> Any:
        return plan_model(bundle, bundle.family, "onnxruntime", MemoryRequest(**request), BackendFacts(on_gpu=on_gpu))

    assert plan(on_gpu=True, vram="1GB") is None
    sizes = {key: entry.loaded_bytes for key, entry in bundle.manifest.components.items()}
    assert plan(on_gpu=True, vram=sum(sizes.values())) is None
    with pytest.raises(
        MemoryBudgetError, match=rf"of {len(sizes)} networks take .*; allow more, or choose `memory=\"s"
    ):
        plan(on_gpu=True, vram=sum(sizes.values()) - 1)
    assert plan(on_gpu=True, vram=max(sizes.values()), memory="sequential") is None
    with pytest.raises(MemoryBudgetError, match=r"of \w*unet, the largest network, take .* allow more\.$"):
        plan(on_gpu=True, vram=max(sizes.values()) - 1, memory="sequential")
    with pytest.raises(InputError, match="`vram`: backend onnxruntime uses no GPU memory"):
        plan(vram="1GB")
    with pytest.raises(InputError, match="engine_dir"):
        plan(on_gpu=True, engine_dir="engines")


def test_a_limit_below_what_was_recorded_is_refused_before_anything_is_loaded(
    toy_bundle: Path, tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle(shutil.copytree(toy_bundle, tmp_path / "bundle"))
    components = {
        key: ComponentMemory(
            graph=graph_hash(bundle, key),
            weights_bytes=entry.loaded_bytes,
            activation_bytes={p.name: 50_000_000 for p in bundle.family.profiles(bundle.manifest, key)},
            kept=entry.repeated,
        )
        for key, entry in bundle.manifest.components.items()
    }
    write_memory(bundle, MemoryRecord(version="1.31.1", measured_on="RTX 3090", components=components))
    loaded: list[str] = []

    def create(vram: int | None, **_: Any) -> Any:
        made = backend(cupy, vram=vram)
        monkeypatch.setattr(made, "load", lambda entry, *_: loaded.append(entry.kind))
        return made

    monkeypatch.setattr(onnxruntime_cuda, "create", create)
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (10**9, 24 * 10**9))
    weights = sum(entry.loaded_bytes for entry in bundle.manifest.components.values())
    limit = weights + 100_000_000  # room for the weights and both U-Nets' activations, but not for a decoder's too
    with pytest.raises(MemoryBudgetError, match=r"GPU memory are not enough \(`vram`\): the least is"):
        load(bundle.path, device="cuda", vram=limit)
    assert loaded == []
    with load(bundle.path, device="cuda", vram=limit, memory="auto") as found:
        assert found.memory == "sequential"
        assert found.plan is not None
        assert found.plan.peak_bytes <= limit
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (weights, 24 * 10**9))
    with pytest.raises(MemoryBudgetError, match="free here and not enough"):
        load(bundle.path, device="cuda")
    assert loaded == []
