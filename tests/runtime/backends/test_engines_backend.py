"""Running engines, with stand-ins where the driver begins: ONNX Runtime computes what the GPU would.

What only a GPU can show, speed and the engines' own numbers, is not here.
"""

from __future__ import annotations

import gc
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.build import BuildSettings, build_engines
from amodal.runtime import backends
from amodal.runtime.backends.onnxruntime import cuda as onnxruntime_cuda
from amodal.runtime.errors import (
    BackendError,
    BackendUnavailableError,
    EngineCorruptError,
    EngineNotFoundError,
    EngineStaleError,
    InputError,
    MemoryBudgetError,
)
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load

SIZE, FRAMES = (64, 64), 3
STEPS = 2


def clip() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    modal = np.zeros((FRAMES, *SIZE), bool)
    modal[:, 20:44, 16:40] = True
    return modal, rng.random((FRAMES, *SIZE), np.float32), rng.integers(0, 256, (FRAMES, *SIZE, 3), np.uint8)


def both(bundle: Path, **options: Any) -> tuple[Any, Any]:
    modal, depth, rgb = clip()
    with load(bundle, **options) as model:
        seen = model.segment(modal, depth=depth, steps=STEPS)
        return seen, model.complete(rgb, modal, seen.masks, seed=seen.noise, steps=STEPS)


@pytest.mark.parametrize("memory", ["resident", "sequential", "auto"])
def test_engines_draw_what_the_graphs_draw(toy_bundle: Path, engines: Path, memory: Any) -> None:
    wanted = both(toy_bundle)
    found = both(toy_bundle, backend="tensorrt", engine_dir=engines, memory=memory)
    for a, b in zip(found, wanted, strict=True):
        # Two CFG rows in one call, or side by side: the same numbers in another order of rounding.
        assert np.abs(a.frames.astype(int) - b.frames).max() <= 1
    assert type(found[0].frames) is np.ndarray


def test_steps_after_the_first_two_are_launches_of_a_cuda_graph(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    modal, depth, _ = clip()
    with load(toy_bundle) as model:
        wanted = model.segment(modal, depth=depth, steps=4)
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        for clips in (1, 2):
            found = model.segment(modal, depth=depth, steps=4)
            assert np.abs(found.frames.astype(int) - wanted.frames).max() <= 1
            assert len(sys.modules["cupy"].launches) == 3 + 4 * (clips - 1)


@pytest.mark.parametrize("looked_at", [0, 1])
def test_nothing_waits_for_the_device_before_the_results(
    toy_bundle: Path, gpu: Any, engines: Path, looked_at: int
) -> None:
    modal, depth, _ = clip()
    if not looked_at:
        depth = (depth * 255).astype(np.uint8)  # whole numbers are finite; floats are looked at, before anything runs

    def waits(steps: int) -> int:
        inside: list[int] = []
        with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
            before = gpu.waits
            model.segment(modal, depth=depth, steps=steps, callback=lambda *_: inside.append(gpu.waits))
            assert inside == [before + looked_at] * steps
            return gpu.waits - before

    # The results, with whether everything was finite.
    assert [waits(2), waits(6)] == [looked_at + 1, looked_at + 1]


@pytest.mark.parametrize(("rows", "profile", "calls"), [("batched", 1, 1), ("separate", 0, 2)])
def test_cfg_rows_choose_their_profile(
    toy_bundle: Path, gpu: Any, engines: Path, rows: Any, profile: int, calls: int
) -> None:
    modal, depth, _ = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        model.segment(modal, depth=depth, steps=STEPS, cfg_rows=rows)
    ran = [call for call in gpu.calls if call[0] == "run" and call[1] == [1, FRAMES, 4, 8, 8]]
    assert len(ran) == STEPS * calls
    assert {call[2] for call in ran} == {profile}


def test_engines_share_one_scratch_that_goes_with_the_last(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    modal, depth, _ = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        model.segment(modal, depth=depth, steps=1)
        cupy = sys.modules["cupy"]
        assert cupy._bytes["now"] == 2000 + 256  # the U-Net's two profiles
        assert cupy._bytes["most"] == 2000 + 256
    assert cupy._bytes["now"] == 0


def test_a_budget_that_is_too_small_refuses_before_anything_is_loaded(
    toy_bundle: Path, gpu: Any, engines: Path
) -> None:
    before = len(gpu.calls)
    with pytest.raises(MemoryBudgetError):
        load(toy_bundle, "tensorrt", engine_dir=engines, memory="auto", vram=100)
    assert len(gpu.calls) == before


def test_too_little_free_memory_refuses_before_anything_is_loaded(
    toy_bundle: Path, gpu: Any, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(toy_bundle, "tensorrt", engine_dir=engines, memory="sequential") as model:
        assert model.plan is not None
        least = model.plan.peak_bytes
    before = len(gpu.calls)
    monkeypatch.setattr(sys.modules["cupy"], "free_bytes", least)
    with load(toy_bundle, "tensorrt", engine_dir=engines, memory="auto", vram="6GB") as model:
        assert model.memory == "sequential"
    monkeypatch.setattr(sys.modules["cupy"], "free_bytes", 1000)
    for vram in (None, "6GB"):
        with pytest.raises(MemoryBudgetError, match=r"1e-06 GB of GPU memory are free here .*the least is \d.* MB, in"):
            load(toy_bundle, "tensorrt", engine_dir=engines, memory="auto", vram=vram)
    with pytest.raises(MemoryBudgetError, match=r"1e-07 GB of GPU memory are not enough \(`vram`\)"):
        load(toy_bundle, "tensorrt", engine_dir=engines, memory="auto", vram=100)
    assert len(gpu.calls) == before


def test_memory_that_runs_out_on_the_device_is_said_and_recovered_from(
    toy_bundle: Path, gpu: Any, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modal, depth, _ = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        cupy = sys.modules["cupy"]

        def full(size: int) -> None:
            raise MemoryError(f"out of memory to allocate {size} bytes")

        with monkeypatch.context() as patch:
            patch.setattr(cupy.cuda, "Memory", full)
            with pytest.raises(MemoryBudgetError, match=r"ran out: 0 MB for activations are not free \(out of memory"):
                model.segment(modal, depth=depth, steps=1)
        found = model.segment(modal, depth=depth, steps=STEPS)
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        np.testing.assert_array_equal(model.segment(modal, depth=depth, steps=STEPS).frames, found.frames)


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """Garbage is looked for among what the test makes alone: what was imported takes half a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_collection")
@pytest.mark.parametrize("order", list(itertools.permutations(["component", "backend", "result", "stream"])))
def test_what_was_made_may_go_in_any_order(
    toy_bundle: Path, gpu: Any, engines: Path, order: tuple[str, ...], recwarn: pytest.WarningsRecorder
) -> None:
    backend = backends.create("tensorrt")
    cupy = sys.modules["cupy"]
    (file,) = engines.glob("*/vae_decoder-*.engine")
    there: dict[str, Any] = {"stream": cupy.cuda.Stream(ptr=9), "backend": backend}
    with there["stream"], backend.active():
        there["component"] = backend.load(Bundle(toy_bundle).component("vae_decoder"), [file])
        there["result"] = there["component"]({"latents": cupy.asarray(np.ones((1, 4, 8, 8), np.float32))})["frames"]
    wanted = cupy.asnumpy(there["result"])
    del backend
    for name in order:
        if name == "component":
            there[name].close()
        if name == "result":
            np.testing.assert_array_equal(cupy.asnumpy(there[name]), wanted)
        del there[name]
        gc.collect()
    assert cupy._bytes["now"] == 0
    assert not [w for w in recwarn if issubclass(w.category, pytest.PytestUnraisableExceptionWarning)]


def test_engines_of_another_version_are_not_used(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    gpu.set(version="11.4.0")
    with pytest.raises(EngineNotFoundError, match="amodal build"):
        load(toy_bundle, "tensorrt", engine_dir=engines)


def test_auto_takes_engines_that_are_there(toy_bundle: Path, gpu: Any, engines: Path, tmp_path: Path) -> None:
    with load(toy_bundle, "auto", engine_dir=engines) as model:
        assert model.backend.name == "tensorrt"
    with load(toy_bundle, "auto") as model:
        assert model.backend.name == "onnxruntime"


def test_auto_says_which_engines_it_passed_over(toy_bundle: Path, gpu: Any, engines: Path, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(engines, stale)
    record = next(stale.glob("*/vae_decoder.json"))
    record.write_text(record.read_text().replace('"frames<=', '"frames<'))
    with pytest.warns(UserWarning, match="tensorrt.* was passed over: .* it was built for other shapes"):
        model = load(toy_bundle, "auto", engine_dir=stale, vram="6GB")
    with model:
        assert model.backend.name == "onnxruntime"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"device": "cpu"}, "onnxruntime"),
        ({"threads": 1}, "tensorrt"),
        ({"device": "cuda", "threads": 1}, "tensorrt"),
        ({"device": "cpu", "threads": 1, "vram": "6GB"}, "onnxruntime"),
    ],
)
def test_auto_goes_where_it_is_sent(
    toy_bundle: Path, gpu: Any, engines: Path, options: dict[str, Any], name: str
) -> None:
    with load(toy_bundle, "auto", engine_dir=engines, **options) as model:
        assert model.backend.name == name
        assert name == "tensorrt" or model.backend.threads == options.get("threads", model.backend.threads)
    options = {option: options[option] for option in options if option != "vram"}
    created = backends.create("auto", **options)
    assert (created.engines is None) == (name == "onnxruntime")


def test_auto_without_engines_holds_graphs_on_a_gpu_to_the_limit(
    toy_bundle: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def create(**options: Any) -> Any:
        asked.append(options)
        raise BackendUnavailableError("not here.")

    monkeypatch.setattr(onnxruntime_cuda, "create", create)
    with pytest.raises(BackendUnavailableError, match="not here"):
        load(toy_bundle, "auto", device="cuda", vram="6GB", threads=1)
    assert asked == [{"device": "cuda", "threads": None, "vram": 6 * 10**9}]


def test_a_damaged_engine_is_not_loaded(toy_bundle: Path, engines: Path) -> None:
    (file,) = engines.glob("*/segment_unet-*.engine")
    file.write_bytes(file.read_bytes()[:-3] + b"}  ")
    modal, depth, _ = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model, pytest.raises(EngineCorruptError, match="hash"):
        model.segment(modal, depth=depth, steps=1)


@pytest.mark.slow
def test_what_the_library_cannot_load_is_named(toy_bundle: Path, gpu: Any, tmp_path: Path) -> None:
    gpu.set(trouble="plain")
    build_engines(Bundle(toy_bundle), BuildSettings("tensorrt", "this", engine_dir=tmp_path / "engines"))
    modal, depth, _ = clip()
    with (
        load(toy_bundle, "tensorrt", engine_dir=tmp_path / "engines") as model,
        pytest.raises(EngineCorruptError, match=r"RTX 3090.*magic tag"),
    ):
        model.segment(modal, depth=depth, steps=1)


@pytest.mark.parametrize(
    ("invalid", "error", "words"),
    [
        ("UNSUPPORTED_CC", EngineStaleError, r"built for other GPUs than this RTX 3090 \(sm86\); .*--target sm86`"),
        (
            "OLD_CUDA_DRIVER",
            BackendUnavailableError,
            "needs a newer driver than this RTX 3090 .*update the NVIDIA driver to 580 or later",
        ),
        (
            "INSUFFICIENT_GPU_MEMORY",
            MemoryBudgetError,
            r"its file has 0\.0 MB, and 20000\.0 MB are free on the RTX 3090",
        ),
        ("MALFORMED_ENGINE", EngineCorruptError, "cannot load the engine .*magic tag.*`amodal build`"),
    ],
)
def test_an_engine_that_is_refused_is_told_why(
    toy_bundle: Path, gpu: Any, tmp_path: Path, invalid: str, error: type[Exception], words: str
) -> None:
    gpu.set(trouble="plain", rtx=True, invalid=invalid)
    build_engines(Bundle(toy_bundle), BuildSettings("tensorrt", "this", ("image_encoder",), engine_dir=tmp_path))
    (file,) = tmp_path.rglob("*.engine")
    backend = backends.create("tensorrt")
    with pytest.raises(error, match=words):
        backend.load(Bundle(toy_bundle).component("image_encoder"), [file])


def test_engines_of_another_gpu_are_not_loaded(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    (folder,) = engines.glob("tensorrt-*")
    for record in folder.glob("*.json"):
        record.write_text(record.read_text().replace('"this-sm86"', '"this-sm90"'))
    folder.rename(folder.with_name(folder.name.replace("sm86", "sm90")))
    with pytest.raises(
        EngineNotFoundError, match=r"no engines of tensorrt for sm86, only for this-sm90; run `amodal bui"
    ):
        load(toy_bundle, "tensorrt", engine_dir=engines)


def test_a_failure_on_the_device_names_the_component(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    gpu.set(trouble="device")
    modal, depth, _ = clip()
    with (
        load(toy_bundle, "tensorrt", engine_dir=engines) as model,
        pytest.raises(BackendError, match="failed in component image_encoder: an illegal memory access"),
    ):
        model.segment(modal, depth=depth, steps=1)


def test_more_frames_at_once_than_an_engine_takes_are_refused(toy_bundle: Path, engines: Path) -> None:
    backend = backends.create("tensorrt")
    entry = Bundle(toy_bundle).component("vae_decoder")
    (file,) = engines.glob("*/vae_decoder-*.engine")
    engine = backend.load(entry, [file])
    with pytest.raises(BackendError, match=r"vae_decoder does not take these shapes \(latents \[9, 4, 8, 8\]\)"):
        engine({"latents": np.zeros((9, 4, 8, 8), np.float32)})
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine({"latents": np.zeros((1, 4, 8, 8), np.float32)})


@pytest.mark.slow
def test_kernels_that_were_compiled_here_are_kept_beside_the_engine(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    gpu.set(rtx=True)
    both(toy_bundle, backend="tensorrt", engine_dir=engines)
    caches = list(engines.rglob("*.runtime_cache"))
    assert len(caches) == len(Bundle(toy_bundle).manifest.components)
    assert not [call for call in gpu.calls if call[0] == "cache"]
    both(toy_bundle, backend="tensorrt", engine_dir=engines)
    assert len([call for call in gpu.calls if call[0] == "cache"]) == len(caches)


def test_kernels_of_another_driver_are_replaced(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    for driver, read in (("580", 0), ("581", 0), ("581", 1)):
        gpu.set(rtx=True, driver=driver)
        before = sum(call[0] == "cache" for call in gpu.calls)
        backend = backends.create("tensorrt")
        (file,) = engines.glob("*/image_encoder-*.engine")
        backend.load(Bundle(toy_bundle).component("image_encoder"), [file]).close()
        assert sum(call[0] == "cache" for call in gpu.calls) - before == read
        assert file.with_suffix(".runtime_cache").read_bytes() == f"kernels {driver}".encode()


def test_what_is_missing_is_said(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.availability("tensorrt").usable
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailableError, match=r"needs CuPy.*amodal\[tensorrt\]"):
        backends.create("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = backends.availability("tensorrt")
    assert not found.usable
    assert "cannot be imported" in found.reason


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:x", "cuda:3"])
def test_unknown_devices_are_named(gpu: Any, device: str) -> None:
    with pytest.raises(BackendUnavailableError, match=device.rpartition(":")[2]):
        backends.create("tensorrt", device=device)


def test_threads_are_for_a_cpu(gpu: Any) -> None:
    with pytest.raises(InputError, match="`threads`"):
        backends.create("tensorrt", threads=2)


@pytest.mark.slow
def test_verify_runs_engines_where_there_is_a_gpu(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    from amodal.engines.verification import VerifySettings
    from amodal.engines.verify import verify_bundle

    settings = VerifySettings("tensorrt", steps=STEPS, threads=1, target="this", engine_dir=engines)
    found = verify_bundle(Bundle(toy_bundle), settings)
    assert found.ok, found
    assert {row.component for row in found.components} == {row.component for row in found.engines}
    assert [row.stage for row in found.stages] == ["segment", "complete"]
    assert any(call[0] == "run" for call in gpu.calls)
    gpu.set(trouble="device")
    with pytest.raises(BackendError, match="illegal memory access"):
        verify_bundle(Bundle(toy_bundle), settings)
