"""What a GPU must show: the CPU's results, no copies, the plan's memory, and that it goes on for ever."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from amodal.engines.compare import relative_l2
from amodal.runtime.backends.onnxruntime.bound import BoundSession
from amodal.runtime.errors import MemoryBudgetError
from amodal.runtime.loading import load
from amodal.runtime.model import Model

from .conftest import Clip, Here

STEPS = 2
TOLERANCE = 2e-2
"""Largest relative difference of latents to the CPU's: engines may round float32 products to TF32, ten bits."""


def segment(model: Model, clip: Clip, **more: Any) -> tuple[Any, Any]:
    """Masks, and the last step's latents on the host."""
    kept: list[Any] = []

    def callback(step: int, sigma: float, latents: Any) -> None:
        if step == STEPS - 1:
            kept.append(np.array(model.backend.to_host(latents)))

    options: dict[str, Any] = {"depth": clip.depth, "steps": STEPS, "callback": callback, **more}
    seen = model.segment(clip.modal, **options)
    return seen, kept[0]


def iou(a: Any, b: Any) -> float:
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else 1.0


def free_bytes(here: Here) -> int:
    here.xp.cuda.Device().synchronize()
    return int(here.xp.cuda.runtime.memGetInfo()[0])


def decoder(here: Here, backend: Any) -> Any:
    with backend.active():
        return backend.load(here.bundle.component("vae_decoder"), here.files("vae_decoder"))


def latents_for(here: Here, frames: int = 2) -> Any:
    height, width = here.bundle.config.latent_size
    return np.random.default_rng(7).standard_normal((frames, 4, height, width)).astype(np.float32)


def test_latents_and_masks_are_the_cpus(here: Here, model: Model, clip: Clip) -> None:
    with load(here.bundle.path, "onnxruntime", device="cpu", threads=None if here.real else 1, verify=False) as cpu:
        expected, expected_latents = segment(cpu, clip)
    found, latents = segment(model, clip)
    assert relative_l2(latents, expected_latents) < TOLERANCE
    assert iou(found.masks, expected.masks) > 0.99
    assert np.abs(found.frames.astype(int) - expected.frames).mean() < 2


def test_two_runs_are_bit_equal(model: Model, clip: Clip) -> None:
    (first, one), (second, two) = segment(model, clip), segment(model, clip)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first.frames, second.frames)


def test_a_cuda_graph_equals_direct_execution(here: Here, model: Model, clip: Clip) -> None:
    _, replayed = segment(model, clip)
    direct = here.load(cuda_graph=False)
    _, expected = segment(direct, clip)
    direct.close()
    np.testing.assert_array_equal(replayed, expected)
    loaded = model.session.components._loaded.values()
    if here.engines is None:
        assert [len(e._captured) for e in loaded if isinstance(e, BoundSession) and e._graph] == [1]
        assert "cuda_graph_refused" not in model.backend.describe()
    elif here.name == "tensorrt":  # TensorRT for RTX does not say what it captures
        assert [one.graphs for e in loaded for one in getattr(e, "_repeated", {}).values()] == [1]


def test_sequential_memory_gives_what_resident_memory_gives(here: Here, model: Model, clip: Clip) -> None:
    _, resident = segment(model, clip)
    one_by_one = here.load(memory="sequential")
    _, found = segment(one_by_one, clip)
    one_by_one.close()
    np.testing.assert_array_equal(found, resident)


def test_inputs_are_read_and_results_written_where_they_lie(
    here: Here, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = here.backend()
    executable = decoder(here, backend)
    read: dict[str, int] = {}
    if here.engines is None:
        real = executable._bind

        def bind(binding: Any, inputs: Any, outputs: Any) -> None:
            read.update({n: int(a.data.ptr) for n, a in (*inputs.items(), *outputs.items())})
            real(binding, inputs, outputs)

        monkeypatch.setattr(executable, "_bind", bind)
    else:
        context_of = executable._context

        def noting(index: int) -> Any:
            shaped = context_of(index)
            shaped.context = _Noting(shaped.context, read)
            return shaped

        monkeypatch.setattr(executable, "_context", noting)
    with backend.active():
        latents = here.xp.asarray(latents_for(here))
        frames = executable({"latents": latents})["frames"]
        assert read == {"latents": latents.data.ptr, "frames": frames.data.ptr}
        backend.to_host(frames)
    executable.close()


class _Noting:
    """A context of TensorRT that notes the addresses it is given."""

    def __init__(self, context: Any, noted: dict[str, int]) -> None:
        self._context, self._noted = context, noted

    def set_tensor_address(self, name: str, address: int) -> Any:
        self._noted[name] = address
        return self._context.set_tensor_address(name, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@pytest.mark.gpu
def test_results_are_offered_without_a_copy(here: Here) -> None:
    backend = here.backend()
    executable = decoder(here, backend)
    with backend.active():
        frames = executable({"latents": here.xp.asarray(latents_for(here))})["frames"]
    assert frames.__cuda_array_interface__["data"][0] == frames.data.ptr
    assert here.xp.from_dlpack(frames).data.ptr == frames.data.ptr
    executable.close()


def test_arrays_of_the_device_are_taken(here: Here, model: Model, clip: Clip) -> None:
    if not hasattr(model, "warm_up"):
        pytest.skip("this version takes arrays of the host alone")
    model.warm_up()
    _, expected = segment(model, clip)
    on_device = Clip(here.xp.asarray(clip.modal), here.xp.asarray(clip.depth))
    _, found = segment(model, on_device)
    assert relative_l2(found, expected) < 1e-5


def test_a_foreign_stream_is_waited_for_and_waits(here: Here) -> None:
    backend = here.backend()
    executable = decoder(here, backend)
    values = latents_for(here)
    with backend.active():
        expected = backend.to_host(executable({"latents": here.xp.asarray(values)})["frames"])
    stream = here.xp.cuda.Stream(non_blocking=True)
    with stream:
        latents = here.xp.asarray(np.zeros_like(values))
        if here.real:  # keeps the stream busy, so that whoever does not wait reads zeros
            busy = here.xp.ones((4096, 4096), np.float32)
            for _ in range(30):
                busy = busy @ busy * np.float32(1e-4)
        here.xp.copyto(latents, here.xp.asarray(values))
        with backend.active():
            frames = executable({"latents": latents})["frames"]
        found = frames * np.float32(1)  # on the foreign stream again
    stream.synchronize()
    np.testing.assert_array_equal(backend.to_host(found), expected)
    executable.close()


def test_two_models_in_two_threads_do_not_disturb_each_other(here: Here, model: Model, clip: Clip) -> None:
    second = here.load()
    other = Clip(np.roll(clip.modal, 5, axis=-1), clip.depth[..., ::-1].copy())
    work = [(model, clip), (second, other)]
    expected = [segment(*row)[1] for row in work]
    rounds = 3 if here.real else 1
    found: list[list[Any]] = [[], []]
    trouble: list[BaseException] = []

    def run(place: int) -> None:
        try:
            found[place] = [segment(*work[place])[1] for _ in range(rounds)]
        except BaseException as error:  # noqa: BLE001 (a thread's error would be lost)
            trouble.append(error)

    # The stand-in for CuPy has one current stream for all threads: there they take turns.
    threads = [threading.Thread(target=run, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
        if not here.real:
            thread.join()
    for thread in threads:
        thread.join()
    second.close()
    assert not trouble
    for place in range(2):
        assert len(found[place]) == rounds
        for latents in found[place]:
            np.testing.assert_array_equal(latents, expected[place])


@pytest.mark.gpu
def test_memory_is_within_five_percent_of_the_plan(here: Here, clip: Clip) -> None:
    """What is allocated, without what kernels' code takes: that is in before the clip that is measured."""
    planned = here.load()
    if planned.plan is None:
        pytest.skip("graphs have no plan: nothing tells their activations before they run")
    segment(planned, clip)  # loads all, kernels too
    planned.close()
    here.xp.get_default_memory_pool().free_all_blocks()
    before, least, ended = free_bytes(here), [free_bytes(here)], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            least[0] = min(least[0], int(here.xp.cuda.runtime.memGetInfo()[0]))
            time.sleep(0.001)

    again = here.load()
    watcher = threading.Thread(target=watch)
    watcher.start()
    segment(again, clip)
    ended.set()
    watcher.join()
    assert again.plan is not None
    expected = again.plan.peak_bytes
    again.close()
    # CUDA gives memory in blocks of 2 MB: each of a small bundle's allocations may be rounded up to one.
    rounding = 2 * 2**20 * (2 + len(again.plan.weights))
    assert before - least[0] <= 1.05 * expected + rounding
    assert before - least[0] >= 0.95 * expected - rounding


@pytest.mark.gpu
def test_two_hundred_clips_take_no_more_memory_than_twenty(here: Here, model: Model, clip: Clip) -> None:
    import resource

    def held() -> tuple[int, int]:
        return -free_bytes(here), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    marks = {}
    for done in range(1, 201):
        model.segment(clip.modal, depth=clip.depth, steps=1)
        if done in (20, 200):
            marks[done] = held()
    device, host = (after - before for before, after in zip(marks[20], marks[200], strict=True))
    assert device <= 4 * 2**20
    assert host <= 40 * 2**20


@pytest.mark.gpu
def test_the_first_clip_after_warming_up_is_as_fast_as_later_ones(here: Here, clip: Clip) -> None:
    fresh = here.load()
    fresh.warm_up(["segment"], from_rgb=False, steps=STEPS)
    seconds = [fresh.segment(clip.modal, depth=clip.depth, steps=STEPS).seconds for _ in range(30)]
    fresh.close()
    assert seconds[0] <= max(1.1 * float(np.median(seconds[1:])), max(seconds[1:]))


@pytest.mark.gpu
def test_memory_that_runs_out_is_said_and_recovered_from(here: Here, model: Model, clip: Clip) -> None:
    _, expected = segment(model, clip)
    here.xp.get_default_memory_pool().free_all_blocks()
    crowded = here.load()  # its components come with the first clip
    hogged = [here.xp.cuda.Memory(free_bytes(here) - 6 * 2**20)]
    with pytest.raises(MemoryBudgetError, match="memory"):
        segment(crowded, clip)
    if here.engines is not None:
        with pytest.raises(MemoryBudgetError, match="GPU memory are free here and not enough"):
            here.load()
    hogged.clear()
    crowded.close()
    fresh = here.load()
    _, found = segment(fresh, clip)
    fresh.close()
    np.testing.assert_array_equal(found, expected)
    _, found = segment(model, clip)
    np.testing.assert_array_equal(found, expected)
