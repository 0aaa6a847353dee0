"""The examples of docs/embedding.md run: on the CPU where they can, and with stand-ins where they need a GPU."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.loading import load
from amodal.runtime.pictures.cropping import Crop
from amodal.runtime.scenes.scene import make_scene

from ..places import ROOT

PAGE = ROOT / "docs" / "embedding.md"
FRAMES, SIZE = 3, (40, 56)


def example(heading: str) -> dict[str, Any]:
    """What the code below a heading defines."""
    after = PAGE.read_text("utf-8").split(f"## {heading}\n")[1]
    found = re.search(r"```python\n(.*?)```", after, re.DOTALL)
    assert found
    defined: dict[str, Any] = {"__name__": "example"}
    exec(compile(found[1], f"{PAGE.name}: {heading}", "exec"), defined)
    return defined


def clip() -> tuple[Any, Any]:
    modal = np.zeros((FRAMES, *SIZE), bool)
    modal[:, 12:30, 10:40] = True
    return modal, np.random.default_rng(3).random(modal.shape, np.float32)


class Camera:
    """Shows a scene, over and over a few pictures of it, as cv2.VideoCapture would."""

    def __init__(self, scene: Any, pictures: int) -> None:
        self.scene, self.pictures, self.now = scene, pictures, -1

    def read(self) -> tuple[bool, Any]:
        self.now += 1
        return self.now < self.pictures, self.scene.frames[self.now % len(self.scene.frames)][..., ::-1]


def test_the_loop_over_a_camera_gives_what_the_last_pictures_give(toy_bundle: Path) -> None:
    scene = make_scene(4, frames=6, size=SIZE)
    camera = Camera(scene, 5)
    drawn = example("A loop over a camera")["watch"](
        camera,
        detect=lambda picture: scene.modal[camera.now],
        nearness=lambda picture: scene.depth[camera.now],
        bundle=toy_bundle,
        every=2,
        steps=2,
    )
    found = [(picture, whole.copy()) for picture, whole in drawn]
    assert len(found) == 2
    np.testing.assert_array_equal(found[1][0], scene.frames[3])
    with load(toy_bundle) as model:
        for (_, whole), last in zip(found, (1, 3), strict=True):
            part = slice(max(0, last + 1 - FRAMES), last + 1)
            wanted = model.segment(scene.modal[part], depth=scene.depth[part], steps=2)
            np.testing.assert_array_equal(whole, wanted.masks_full[-1])


def pycuda(cupy: Any) -> dict[str, ModuleType]:
    """A stand-in for PyCUDA, whose arrays lie where the stand-in for CuPy says."""

    class GPUArray:
        def __init__(self, array: Any, stream: Any = None) -> None:
            self._array = array
            said = array.__cuda_array_interface__
            self.__cuda_array_interface__ = {**said, "stream": stream and stream.handle}

        def get(self) -> Any:
            return cupy.asnumpy(self._array)

    modules = {name: ModuleType(name) for name in ("pycuda", "pycuda.autoprimaryctx", "pycuda.driver")}
    modules["pycuda.driver"].Stream = lambda: SimpleNamespace(handle=9)  # type: ignore[attr-defined]
    arrays = modules["pycuda.gpuarray"] = ModuleType("pycuda.gpuarray")

    def to_gpu_async(array: Any, stream: Any) -> GPUArray:
        with cupy.cuda.Stream(ptr=stream.handle):
            return GPUArray(cupy.asarray(array), stream)

    arrays.to_gpu_async = to_gpu_async  # type: ignore[attr-defined]
    arrays.empty = lambda shape, dtype: GPUArray(cupy.empty(shape, dtype))  # type: ignore[attr-defined]
    for whole, part in pairwise(("pycuda", "pycuda.gpuarray")):
        setattr(modules[whole], part.rpartition(".")[2], modules[part])
    for part in ("autoprimaryctx", "driver"):
        setattr(modules["pycuda"], part, modules[f"pycuda.{part}"])
    return modules


def test_the_pycuda_host_gets_what_numpy_gets(on_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = on_gpu.backend.xp
    for name, module in pycuda(cupy).items():
        monkeypatch.setitem(sys.modules, name, module)
    defined = example("A host that uses PyCUDA")
    # The model that is loaded already plays the one that the example loads.
    monkeypatch.setitem(defined, "amodal", SimpleNamespace(load=lambda bundle, backend: Kept(on_gpu)))
    modal, depth = clip()
    got = defined["whole_masks"](modal, depth, steps=1)
    np.testing.assert_array_equal(got, on_gpu.segment(modal, depth=depth, steps=1).masks_full)
    assert (9, 9) in cupy.events, "work on the arrays' stream is waited for"


class Kept:
    """A model that goes on after the example has closed it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __enter__(self) -> Any:
        return self._model

    def __exit__(self, *error: Any) -> None:
        pass


def test_the_torch_host_gets_what_numpy_gets(toy_bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    modal, depth = clip()
    with load(toy_bundle) as model:
        whole_masks = example("A host that uses torch")["whole_masks"]
        got = whole_masks(model, torch.from_numpy(modal), torch.from_numpy(depth).requires_grad_(), steps=1)
        np.testing.assert_array_equal(got.numpy(), model.segment(modal, depth=depth, steps=1).masks_full)


def test_a_segmenter_whose_buffers_are_used_again_gives_what_the_last_pictures_give(toy_bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    scene = make_scene(4, frames=6, size=SIZE)
    modal, depth, numbers = torch.empty(SIZE, dtype=torch.bool), torch.empty(SIZE), iter(range(6))

    def network(picture: Any) -> Any:
        now = next(numbers)
        modal.copy_(torch.from_numpy(scene.modal[now]))
        depth.copy_(torch.from_numpy(scene.depth[now]))
        return modal, depth

    follow = example("A segmenter on the same GPU")["follow"]
    with load(toy_bundle) as model:
        found = list(follow(model, scene.frames, network, every=3, steps=1, depth_kind="relative"))
        assert [picture.tobytes() for picture, _ in found] == [scene.frames[at].tobytes() for at in (2, 5)]
        for stop, (_, whole) in zip((3, 6), found, strict=True):
            last = slice(max(0, stop - model.config.frames), stop)
            given = model.segment(scene.modal[last], depth=scene.depth[last], steps=1, depth_kind="relative")
            np.testing.assert_array_equal(whole.numpy(), given.masks_full[-1])


def test_a_small_object_is_run_in_its_window(toy_bundle: Path) -> None:
    whole_masks = example("An object that is small in the frame")["whole_masks"]
    modal, depth = clip()
    small = np.zeros_like(modal)
    small[:, 20:28, 30:40] = True
    window = Crop.around(small)
    with load(toy_bundle) as model:
        found = whole_masks(model, small, depth, steps=1)
        cut = model.segment(window.cut(small), depth=window.cut(depth), steps=1).masks_full
        np.testing.assert_array_equal(window.cut(found), cut)
        assert found.sum() == cut.sum()
        np.testing.assert_array_equal(
            whole_masks(model, modal, depth, steps=1), model.segment(modal, depth=depth, steps=1).masks_full
        )
