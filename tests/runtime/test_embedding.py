"""A model inside another program: its arrays, its streams, its buffers, its threads, and what goes wrong there.

The GPU is a stand-in. That memory is shared shows in its addresses; that streams wait, in the events between them.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.arrays.interop import as_input, stream_of
from amodal.runtime.errors import BackendError, InputError, NonFiniteError
from amodal.runtime.families.diffusion_vas import stage
from amodal.runtime.families.diffusion_vas.stage import Conditions
from amodal.runtime.loading import load
from amodal.runtime.model import Model
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.noise import Draw, NoiseStream

SIZE, FRAMES, STEPS = (64, 64), 3, 1


def clip(height: int = 40, width: int = 56) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    modal = np.zeros((FRAMES, height, width), bool)
    modal[:, 12:30, 10:40] = True
    return {"modal": modal, "depth": rng.integers(0, 256, modal.shape, np.uint8)}


def rgb(height: int = 40, width: int = 56) -> Any:
    return np.random.default_rng(4).integers(0, 256, (FRAMES, height, width, 3), np.uint8)


class Torch:
    """A tensor of a library that speaks DLPack alone."""

    def __init__(self, array: Any, number: int = 0, kind: int = 2) -> None:
        self.array, self.number, self.kind = array, number, kind
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.number

    def __dlpack__(self, stream: int = -1, **options: Any) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


class PyCuda:
    """An array of a library that describes its memory and the stream it works on."""

    def __init__(self, array: Any, stream: int | None = 5, read_only: bool = False) -> None:
        said = array.__cuda_array_interface__
        self.array = array
        self.__cuda_array_interface__ = {**said, "stream": stream, "data": (said["data"][0], read_only)}


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture(scope="module")
def toy(toy_bundle: Path) -> Any:
    with load(toy_bundle, threads=1) as model:
        yield model


# What is handed over.


def test_arrays_on_the_device_are_read_where_they_lie(device: Any) -> None:
    there = device.asarray(rgb())
    for given in (there, there[:, ::2, ::-1], there[1:]):
        for handed in (given, Torch(given), PyCuda(given)):
            got = as_input(handed, "rgb", device)
            assert isinstance(got, device.ndarray)
            assert (address(got), got.strides, got.dtype) == (address(given), given.strides, given.dtype)
            np.testing.assert_array_equal(device.asnumpy(got), device.asnumpy(given))


def test_what_a_producer_has_queued_is_waited_for_on_the_device(device: Any) -> None:
    there = device.asarray(rgb())
    mine = device.cuda.Stream(ptr=88)
    with mine:
        tensor = Torch(there)
        as_input(tensor, "rgb", device)
        assert tensor.streams == [88], "torch is told which stream is to wait for its own"
        as_input(PyCuda(there, stream=5), "rgb", device)
        as_input(PyCuda(there, stream=None), "rgb", device)
    assert device.events == [(88, 5)]
    assert not device.waits


def test_tensors_of_torch_on_the_cpu_are_read_where_they_lie(toy: Model) -> None:
    torch = pytest.importorskip("torch")
    given = clip()
    tensor = torch.from_numpy(given["modal"])
    assert address(as_input(tensor, "modal")) == tensor.data_ptr()
    assert as_input(tensor[:, ::2], "modal").strides == tensor.numpy()[:, ::2].strides
    wanted = toy.segment(**given, steps=STEPS)
    found = toy.segment(tensor, depth=torch.from_numpy(given["depth"]), steps=STEPS)
    np.testing.assert_array_equal(found.frames, wanted.frames)
    with pytest.raises(InputError, match=r"depth \(Tensor\) cannot be read as an array: .*detach"):
        toy.segment(tensor, depth=torch.zeros(tensor.shape, requires_grad=True))


@pytest.mark.parametrize("wrap", [lambda x: x, Torch, PyCuda], ids=["cupy", "dlpack", "interface"])
def test_a_clip_on_the_device_gives_what_the_same_clip_on_the_host_gives(on_gpu: Model, wrap: Any) -> None:
    cupy = on_gpu.backend.xp
    given, frames = clip(), rgb()
    seen = on_gpu.segment(**given, steps=STEPS)
    whole = on_gpu.complete(frames, given["modal"], seen.masks, seed=seen.noise, steps=STEPS)
    there = {name: wrap(cupy.asarray(value)) for name, value in given.items()}
    got = on_gpu.segment(**there, steps=STEPS)
    np.testing.assert_array_equal(got.frames, seen.frames)
    np.testing.assert_array_equal(got.masks_full, seen.masks_full)
    drawn = on_gpu.complete(wrap(cupy.asarray(frames)), there["modal"], got.masks, seed=got.noise, steps=STEPS)
    np.testing.assert_array_equal(drawn.frames_full, whole.frames_full)


def test_each_picture_is_uploaded_once_and_all_results_are_downloaded_together(on_gpu: Model) -> None:
    cupy = on_gpu.backend.xp
    given = clip()
    on_gpu.warm_up(["segment"], steps=STEPS)
    cupy.uploads.clear()
    cupy.downloads.clear()
    seen = on_gpu.segment(**given, steps=STEPS)
    # The noise's words are four bytes each, CLIP's resizing is two matrices, and the rest is small.
    words = 4 * (2 * FRAMES * 3 * SIZE[0] * SIZE[1] + FRAMES * 4 * 8 * 8)
    assert cupy.uploads.count(given["modal"].size) == 2, "masks and depth, a byte for each pixel"
    assert sum(cupy.uploads) < 2 * given["modal"].size + words + 2 * 4 * 224 * SIZE[0] + 10_000
    flags = STEPS + 1  # whether each step's latents were finite, and the frames
    assert cupy.downloads == [flags + seen.masks.nbytes + seen.masks_full.nbytes + seen.frames.nbytes]
    cupy.downloads.clear()
    both = on_gpu.segment(**given, steps=STEPS, samples=2, guidance=(1, 1))
    assert len(cupy.downloads) == 1
    assert all(array.base.nbytes == array.nbytes for array in (both.masks, both.frames)), "none keeps the others'"
    on_gpu.complete(rgb(), given["modal"], seen.masks, steps=STEPS)
    assert len(cupy.downloads) == 2


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda cupy, x: PyCuda(freed(cupy, x)), r"modal points to 0x\w+, which is no GPU memory: it was freed"),
        (lambda cupy, x: PyCuda(moved(cupy, x)), "modal is on GPU 1 and this model runs on GPU 0"),
        (lambda cupy, x: Torch(x, number=1), "modal is on GPU 1"),
        (lambda cupy, x: moved(cupy, x), "modal is on GPU 1"),
        (lambda cupy, x: Torch(x, kind=8), r"another kind of device \(DLPack's 8\)"),
        (lambda cupy, x: x[0], r"modal has shape \(40, 56\); expected \[T, h, w\]"),
        (lambda cupy, x: PyCuda(x.astype(np.complex64)), "modal has dtype complex64; expected bool or uint8"),
        (lambda cupy, x: x.astype(np.float32), "modal is float, hence prepared, but 40x56"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(on_gpu: Model, give: Any, message: str) -> None:
    cupy = on_gpu.backend.xp
    given = clip()
    with pytest.raises(InputError, match=message):
        on_gpu.segment(give(cupy, cupy.asarray(given["modal"])), depth=given["depth"])


def freed(cupy: Any, array: Any) -> Any:
    cupy.freed.add(address(array))
    return array


def moved(cupy: Any, array: Any) -> Any:
    cupy.elsewhere[address(array)] = 1
    return array


def test_arrays_of_a_gpu_are_refused_by_a_model_on_the_cpu(toy: Model, device: Any) -> None:
    there = device.asarray(clip()["modal"])
    for given in (Torch(there), PyCuda(there)):
        with pytest.raises(InputError, match=r"modal is on a GPU and this model runs on the CPU.*x.cpu\(\)"):
            toy.segment(given, depth=clip()["depth"])
    with pytest.raises(InputError, match=r"modal \(list\) cannot be read as an array"):
        toy.segment([[1, 2], [3]], depth=clip()["depth"])


# What comes back.


def test_results_stay_on_the_device_when_asked(on_gpu: Model) -> None:
    cupy = on_gpu.backend.xp
    given = clip()
    wanted = on_gpu.segment(**given, steps=STEPS)
    cupy.downloads.clear()
    seen = on_gpu.segment(**given, steps=STEPS, to="device")
    assert cupy.downloads == [STEPS + 1], "whether everything was finite"
    for name in ("masks", "masks_full", "frames"):
        there: Any = getattr(seen, name)
        assert there.__cuda_array_interface__["shape"] == getattr(wanted, name).shape
        assert there.__dlpack_device__() == (2, 0)
        np.testing.assert_array_equal(cupy.asnumpy(there), getattr(wanted, name))
    whole = on_gpu.complete(rgb(), given["modal"], seen.masks, seed=seen.noise, steps=STEPS, to="device")
    assert isinstance(whole.frames_full, cupy.ndarray)
    with pytest.raises(InputError, match="to='gpu' is unknown"):
        on_gpu.segment(**given, to="gpu")  # type: ignore[arg-type]


def test_results_are_written_into_buffers_wherever_they_are(on_gpu: Model) -> None:
    cupy = on_gpu.backend.xp
    given = clip()
    wanted = on_gpu.segment(**given, steps=STEPS)
    ring = cupy.asarray(np.zeros((2, FRAMES, 40, 56), bool))
    out = {
        "masks_full": ring[1],
        "masks": PyCuda(cupy.asarray(np.zeros((FRAMES, *SIZE), bool))),
        "frames": np.zeros((FRAMES, *SIZE, 6), np.uint8)[..., ::2],
    }
    seen = on_gpu.segment(**given, steps=STEPS, out=out)
    assert seen.masks is out["masks"]
    assert seen.frames is out["frames"]
    np.testing.assert_array_equal(cupy.asnumpy(ring[1]), wanted.masks_full)
    np.testing.assert_array_equal(cupy.asnumpy(seen.masks.array), wanted.masks)
    np.testing.assert_array_equal(seen.frames, wanted.frames)
    assert not cupy.asnumpy(ring[0]).any()


def test_results_are_written_into_buffers_on_the_cpu(toy: Model) -> None:
    given, padding = clip(), Padding(40, 56)
    wanted = toy.segment(**given, steps=STEPS, padding=padding)
    out: dict[str, Any] = {"masks_full": np.zeros(wanted.masks_full.shape, bool)}
    torch = pytest.importorskip("torch")
    out["frames"] = torch.zeros(wanted.frames.shape, dtype=torch.uint8)
    seen: Any = toy.segment(**given, steps=STEPS, padding=padding, out=out)
    np.testing.assert_array_equal(out["masks_full"], wanted.masks_full)
    assert seen.masks_full is out["masks_full"]
    assert seen.frames is out["frames"]
    np.testing.assert_array_equal(out["frames"].numpy(), wanted.frames)


def read_only(*shape: int) -> Any:
    array = np.zeros(shape, bool)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"mask": np.zeros(3)}, "there is no result 'mask'; expected masks, masks_full, frames"),
        (
            {"masks": np.zeros((FRAMES, 40, 56), bool)},
            r"masks is bool \[3, 40, 56\]; this call writes bool \[3, 64, 64",
        ),
        ({"masks": np.zeros((FRAMES, *SIZE), np.uint8)}, "masks is uint8"),
        ({"masks_full": read_only(FRAMES, 40, 56)}, "masks_full is read-only"),
        ({"masks": [[0]]}, "masks is list; expected an array to write into"),
    ],
)
def test_buffers_that_do_not_fit_are_refused_before_anything_runs(toy: Model, out: Any, message: str) -> None:
    toy.session.components.start_timing()
    with pytest.raises(InputError, match=message):
        toy.segment(**clip(), out=out)
    assert not toy.session.components.timings
    with pytest.raises(InputError, match="out takes the results of one sample, not of 2"):
        toy.segment(**clip(), samples=2, out={"masks": np.zeros((FRAMES, *SIZE), bool)})


def test_a_buffer_on_the_device_that_may_not_be_written_to_is_refused(on_gpu: Model) -> None:
    cupy = on_gpu.backend.xp
    there = cupy.asarray(np.zeros((FRAMES, *SIZE), bool))
    with pytest.raises(InputError, match="masks is read-only"):
        on_gpu.segment(**clip(), out={"masks": PyCuda(there, read_only=True)})
    with pytest.raises(InputError, match="out: masks is on GPU 1"):
        on_gpu.segment(**clip(), out={"masks": moved(cupy, there)})


def test_conditions_are_gone_when_the_sampler_begins(on_gpu: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    took = Conditions.take

    def take(self: Conditions) -> Any:
        both = took(self)
        held.extend(map(weakref.ref, both))
        return both

    monkeypatch.setattr(Conditions, "take", take)
    alive: list[int] = []
    on_gpu.segment(**clip(), steps=STEPS, callback=lambda *_: alive.append(sum(ref() is not None for ref in held)))
    assert len(held) == 2
    assert alive == [0], "the memory plan counts them for encoding alone"


# Streams.


@pytest.mark.parametrize(
    "stream",
    [
        9,
        SimpleNamespace(ptr=9),
        SimpleNamespace(cuda_stream=9),
        SimpleNamespace(handle=9),
        SimpleNamespace(handle=SimpleNamespace(value=9)),
        SimpleNamespace(__cuda_stream__=lambda: (0, 9)),
    ],
    ids=["address", "cupy", "torch", "pycuda", "numba", "protocol"],
)
def test_every_librarys_stream_is_understood(stream: Any, device: Any) -> None:
    assert stream_of(stream, device).ptr == 9


def test_what_is_no_stream_is_refused(device: Any) -> None:
    with pytest.raises(InputError, match="stream is str; expected one of CuPy, torch, PyCUDA or Numba"):
        stream_of("9", device)


def test_calls_work_on_the_callers_stream(on_gpu: Model) -> None:
    cupy = on_gpu.backend.xp
    given = clip()
    wanted = on_gpu.segment(**given, steps=STEPS)
    before = len(cupy.events)
    inside: list[int] = []
    with on_gpu.on_stream(SimpleNamespace(cuda_stream=9)):
        seen = on_gpu.segment(
            **given, steps=STEPS, callback=lambda *_: inside.append(cupy.cuda.get_current_stream().ptr)
        )
    assert inside == [9]
    assert len(cupy.events) == before, "there is no other stream to wait for"
    np.testing.assert_array_equal(seen.frames, wanted.frames)
    on_gpu.segment(**given, steps=STEPS)
    assert cupy.events[before:] == [(77, 0), (0, 77)], "the model's own, and CUDA's default one"


def test_a_stream_of_another_gpu_than_the_current_one_is_followed(toy_bundle: Path, gpu: Any, built: Path) -> None:
    with load(toy_bundle, "tensorrt", engine_dir=built, device="cuda:1") as model:
        cupy = model.backend.xp
        inside: list[tuple[int, int]] = []

        def note(*_: Any) -> None:
            inside.append((int(cupy.cuda.Device().id), int(cupy.cuda.get_current_stream().ptr)))

        with model.on_stream(9):
            model.segment(**clip(), steps=STEPS, callback=note)
            model.segment(**clip(), steps=STEPS, callback=note)
        assert set(inside) == {(1, 9)}
        assert cupy.cuda.Device().id == 0


def test_a_stream_means_nothing_on_the_cpu(toy: Model) -> None:
    with toy.on_stream(object()):
        assert toy.segment(**clip(), steps=STEPS).masks.any()


# Before the first clip.


def test_warming_up_does_all_that_a_first_clip_would_wait_for(toy_bundle: Path, toy: Model) -> None:
    said: list[tuple[str, str]] = []
    stream = NoiseStream(5)
    expected = stream.clone().randn((20,))
    given = clip()
    with load(toy_bundle, threads=1, progress=lambda kind, phase="", *_: said.append((kind, phase))) as model:
        model.warm_up(frame_size=(40, 56))
        assert {kind for kind, what in said if what == "run"} == {e.kind for e in model.manifest.components.values()}
        said.clear()
        seen = model.segment(**given, seed=stream, steps=STEPS)
        assert "load" not in seen.timings
        assert not [what for _, what in said if what != "run"]
    np.testing.assert_array_equal(stream.randn((20,)), expected)
    np.testing.assert_array_equal(toy.segment(**given, seed=5, steps=STEPS).frames, seen.frames)


def test_warming_up_runs_little(gpu_model: Any) -> None:
    model, gpu = gpu_model

    def runs() -> list[tuple[int, ...]]:
        return [tuple(call[1]) for call in gpu.calls if call[0] == "run"]

    before = len(runs())
    model.warm_up(["segment"], steps=25)
    warm = runs()[before:]
    assert warm.count((1, FRAMES, 4, 8, 8)) == 2, "steps"
    assert len(warm) == len(set(warm)) + 2, "two conditions are encoded, and everything else runs once"
    model.segment(**clip(), steps=4)
    assert set(runs()[before + len(warm) :]) == set(warm), "no shapes that were not seen before"


def test_a_stage_that_is_not_there_cannot_be_warmed_up(toy: Model) -> None:
    with pytest.raises(InputError, match="1 or more"):
        toy.warm_up(steps=0)


# Threads.


def together(models: list[Model], given: dict[str, Any]) -> list[Any]:
    def work(model: Model) -> list[Any]:
        return [model.segment(**given, seed=seed, steps=STEPS).frames for seed in (1, 2)]

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(work, models))


def test_two_models_in_two_threads_draw_what_each_draws_alone(toy_bundle: Path, toy: Model) -> None:
    given = clip()
    alone = [toy.segment(**given, seed=seed, steps=STEPS).frames for seed in (1, 2)]
    with load(toy_bundle, threads=1) as other:
        for drawn in together([toy, other], given):
            np.testing.assert_array_equal(drawn, alone)
    np.testing.assert_array_equal(toy.segment(**given, seed=1, steps=STEPS).frames, alone[0])


def test_two_models_in_two_threads_share_nothing_on_a_device(toy_bundle: Path, gpu: Any, built: Path) -> None:
    given = clip()
    one, other = (load(toy_bundle, "tensorrt", engine_dir=built) for _ in range(2))
    assert one.backend.xp is other.backend.xp
    first, second = together([one, other], given)
    np.testing.assert_array_equal(first, second)
    one.close()
    np.testing.assert_array_equal(other.segment(**given, seed=1, steps=STEPS).frames, first[0])
    other.close()


def test_other_threads_run_while_an_engine_does(toy_bundle: Path) -> None:
    """Held for a whole run, Python's lock would let this thread go on only between two of them."""
    runs, went, over = 4, [0], threading.Event()
    with load(toy_bundle, threads=1) as model, model.session.components.use("segment_unet") as unet:
        entry = model.bundle.component("segment_unet")
        shapes = {t.name: [2 if isinstance(n, str) else n for n in t.shape] for t in entry.inputs}
        inputs = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}

        def work() -> None:
            for _ in range(runs):
                unet(inputs)
            over.set()

        thread = threading.Thread(target=work)
        thread.start()
        while not over.wait(0.0005):
            went[0] += 1
        thread.join()
    assert went[0] > 2 * runs


def test_noise_is_drawn_while_clip_runs(on_gpu: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits here until the image encoder runs: drawn before that, it would wait in vain."""
    real, running = stage._draw, threading.Event()
    seen: list[tuple[bool, bool]] = []

    def draw(*given: Any) -> Any:
        apart, beside = threading.current_thread() is not threading.main_thread(), running.wait(20)
        seen.append((apart, beside))
        drawn = real(*given)
        assert all(isinstance(part, Draw) for part in drawn), "words; the rest is for the device"
        return drawn

    def report(kind: str, phase: str = "", *_: Any) -> None:
        if (kind, phase) == ("image_encoder", "run"):
            running.set()

    monkeypatch.setattr(stage, "_draw", draw)
    monkeypatch.setattr(on_gpu.session.components, "_progress", report)
    on_gpu.segment(**clip(), steps=STEPS)
    assert seen == [(True, True)]


@pytest.mark.slow
def test_clip_after_clip_takes_no_more_memory(on_gpu: Model) -> None:
    """The device's memory is numpy's here; tests/gpu runs two hundred on a GPU."""
    given, held = clip(), []
    tracemalloc.start()
    try:
        for done in range(16):
            on_gpu.segment(**given, steps=STEPS)
            for notes in (on_gpu.backend.xp.uploads, on_gpu.backend.xp.downloads, on_gpu.backend.xp.events):
                notes.clear()
            if done in (5, 15):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 150_000, "a picture that each of ten clips left behind would be 370 000 bytes"


# What goes wrong.


def test_after_a_fault_of_the_device_every_call_says_so_and_closing_works(
    toy_bundle: Path, built: Path, gpu: Any
) -> None:
    model, other = (load(toy_bundle, "tensorrt", engine_dir=built) for _ in range(2))
    given = clip()
    seen = model.segment(**given, steps=STEPS, to="device")
    cupy = model.backend.xp
    cupy.failing = True
    for _ in range(2):
        with pytest.raises(BackendError, match=r"tensorrt failed on the RTX 3090: .*illegal memory access"):
            model.segment(**given, steps=STEPS)
    other.close()
    model.close()
    model.close()
    assert cupy._bytes["now"] == 0
    del seen
    cupy.failing = False
    with pytest.raises(BackendError, match="the model was closed"):
        model.segment(**given, steps=STEPS)


def test_a_fault_in_the_middle_of_a_clip_is_named_and_closing_works(toy_bundle: Path, built: Path, gpu: Any) -> None:
    model = load(toy_bundle, "tensorrt", engine_dir=built)
    cupy = model.backend.xp

    def fault(step: int, sigma: float, latents: Any) -> None:
        cupy.failing = True

    with pytest.raises(BackendError, match="illegal memory access"), model:
        model.segment(**clip(), steps=2, callback=fault)
    assert cupy._bytes["now"] == 0


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_latents_that_are_not_finite_on_a_device_name_their_step(on_gpu: Model) -> None:
    def spoil(step: int, sigma: float, latents: Any) -> None:
        if step == 1:
            latents[...] = np.nan

    with pytest.raises(NonFiniteError, match="after step 2") as caught:
        on_gpu.segment(**clip(), steps=4, callback=spoil)
    assert caught.value.step == 2
