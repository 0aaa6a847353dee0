"""Where TensorRT says nothing and goes on: sizes it forgets, memory it only logs, kernels that come later.

The stand-in is as strict as the library there; each test fails with an adapter that trusts it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.build import BuildSettings, build_engines
from amodal.runtime import backends
from amodal.runtime.backends.gpu import find_gpu
from amodal.runtime.builds.finding import find_build
from amodal.runtime.errors import BackendError, BackendUnavailableError, MemoryBudgetError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.calls import profiles_of
from amodal.runtime.loading import load

STEPS = 2


def clip() -> tuple[Any, Any]:
    modal = np.zeros((3, 64, 64), bool)
    modal[:, 20:44, 16:40] = True
    return modal, np.random.default_rng(3).random((3, 64, 64), np.float32)


def component(bundle: Path, engines: Path, kind: str) -> tuple[Any, Any]:
    """A backend, and a component of the toy bundle on it."""
    opened = Bundle(bundle)
    backend = backends.create("tensorrt")
    with backend.active():
        return backend, backend.load(opened.component(kind), find_build(opened, engines, "tensorrt", {}).files(kind))


def wide_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine takes a range of frames, as a family may ask."""
    from amodal.runtime.families.diffusion_vas.family import FAMILY

    plain = FAMILY.profiles

    def ranges(manifest: Any, key: str) -> Any:
        found = plain(manifest, key)
        if "frames" not in found[0].name:
            return found
        shapes = {name: ((1, *most[1:]), most, most) for name, (_, _, most) in found[0].shapes.items()}
        return (found[0].model_copy(update={"shapes": shapes}),)

    monkeypatch.setattr(type(FAMILY), "profiles", staticmethod(ranges))


@pytest.fixture
def ranges(gpu: Any, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines of two components that take a range of frames."""
    wide_profiles(monkeypatch)
    build_engines(
        Bundle(toy_bundle), BuildSettings("tensorrt", "this", ("vae_decoder", "vae_encoder"), engine_dir=tmp_path / "e")
    )
    return tmp_path / "e"


def decode(backend: Any, executable: Any, frames: int) -> Any:
    latents = np.random.default_rng(frames).standard_normal((frames, 4, 8, 8)).astype(np.float32)
    with backend.active():
        return backend.to_host(executable({"latents": backend.xp.asarray(latents)})["frames"])


def test_memory_is_asked_for_again_whenever_the_shapes_change(toy_bundle: Path, gpu: Any, ranges: Path) -> None:
    """Back at shapes that it has seen, a context has forgotten what they need, and wants the profile's most."""
    backend, decoder = component(toy_bundle, ranges, "vae_decoder")
    wanted = {n: decode(backend, decoder, n) for n in (1, 2)}
    decoder.close()
    before = len(gpu.calls)
    backend, decoder = component(toy_bundle, ranges, "vae_decoder")
    for frames in (1, 2, 1, 1, 2):
        np.testing.assert_array_equal(decode(backend, decoder, frames), wanted[frames])
    decoder.close()
    assert [call[1] for call in gpu.calls[before:] if call[0] == "size"] == [334, 667, 334, 667]


def test_memory_that_is_too_small_is_an_error_although_it_is_only_logged(
    toy_bundle: Path, ranges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, decoder = component(toy_bundle, ranges, "vae_decoder")
    decode(backend, decoder, 2)
    monkeypatch.setattr(type(backend._scratch), "address", property(lambda scratch: (4096, 600)))
    with pytest.raises(BackendError, match=r"vae_decoder: .*too small\. Provided 600, required 667"):
        decode(backend, decoder, 2)


def test_the_first_run_has_the_bits_of_all_later_ones(toy_bundle: Path, gpu: Any, ranges: Path) -> None:
    """With lazily compiled kernels, fallbacks would round in another way until the compiler is done."""
    gpu.set(rtx=True)
    backend, decoder = component(toy_bundle, ranges, "vae_decoder")
    first, later = decode(backend, decoder, 2), decode(backend, decoder, 2)
    np.testing.assert_array_equal(first, later)
    decoder.close()


@pytest.mark.parametrize("trouble", ["context memory", "run memory"])
def test_memory_that_runs_out_is_told_from_other_failures(
    toy_bundle: Path, gpu: Any, engines: Path, trouble: str
) -> None:
    gpu.set(trouble=trouble)
    modal, depth = clip()
    with (
        load(toy_bundle, "tensorrt", engine_dir=engines) as model,
        pytest.raises(MemoryBudgetError, match=r"ran out on the RTX 3090 \(component image_encoder: .*sequential"),
    ):
        model.segment(modal, depth=depth, steps=1)


def test_contexts_are_made_when_they_are_used(toy_bundle: Path, gpu: Any, engines: Path) -> None:
    modal, depth = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        before = sum(call[0] == "context" for call in gpu.calls)
        model.segment(modal, depth=depth, steps=1, cfg_rows="batched", decode_chunk=1)
        made = sum(call[0] == "context" for call in gpu.calls) - before
    # Five engines: of the U-Net the profile for both rows, of the decoder that for one frame.
    assert made == 5


def test_a_large_decoder_does_not_move_the_scratch_after_warming_up(
    toy_bundle: Path, gpu: Any, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder runs last: if it moved the scratch, the U-Net's graph would be recorded anew in the first clip."""
    modal, depth = clip()
    for record in engines.glob("*/vae_decoder.json"):
        record.write_text(record.read_text().replace('"frames=3": 1000', '"frames=3": 9000'))
    gpu.set(decoder=9)
    with load(toy_bundle, "tensorrt", engine_dir=engines) as model:
        model.warm_up(["segment"], from_rgb=False, steps=STEPS)
        (unet,) = [e for e in model.session.components._loaded.values() if getattr(e, "_repeated", None)]
        assert [one.graphs for one in unet._repeated.values()] == [1]
        model.segment(modal, depth=depth, steps=STEPS)
        assert [one.graphs for one in unet._repeated.values()] == [1]
        assert sys.modules["cupy"]._bytes["now"] == 9000 + 256


def test_sequential_memory_holds_no_more_scratch_than_each_engine_needs(
    toy_bundle: Path, gpu: Any, engines: Path
) -> None:
    modal, depth = clip()
    with load(toy_bundle, "tensorrt", engine_dir=engines, memory="sequential") as model:
        seen: list[int] = []
        model.segment(
            modal, depth=depth, steps=1, cfg_rows="separate", callback=lambda *_: seen.append(_held(model.backend))
        )
        assert seen == [1000 + 256]


def _held(backend: Any) -> int:
    return int(backend.xp._bytes["now"])


@pytest.mark.parametrize(
    ("frames", "chunk", "expected"),
    [
        (25, 8, ["frames=8", "frames=1", "frames<=7"]),
        (24, 8, ["frames=8", "frames<=7"]),
        (3, 2, ["frames=2", "frames=1"]),
        (8, 1, ["frames=1"]),
        (4, 9, ["frames=4", "frames<=3"]),
    ],
)
def test_profiles_are_of_the_shapes_that_run_and_ranges_for_other_decode_chunks(
    toy_bundle: Path, frames: int, chunk: int, expected: list[str]
) -> None:
    inputs = Bundle(toy_bundle).component("vae_decoder").inputs
    found = profiles_of("vae_decoder", inputs, frames, chunk)
    assert [profile.name for profile in found] == expected
    sizes = [next((low[0], high[0]) for low, _, high in profile.shapes.values()) for profile in found]
    accepted = {n for low, high in sizes for n in range(low, high + 1)}
    assert accepted == set(range(1, min(chunk, frames) + 1))
    assert all(low == high for profile, (low, high) in zip(found, sizes, strict=True) if "<=" not in profile.name)


@pytest.mark.parametrize(("cuda", "fix"), [(13000, " to 580 or later."), (12080, " to 525 or later."), (14000, ".")])
def test_a_driver_that_is_too_old_is_told_which_to_install(device: Any, cuda: int, fix: str) -> None:
    def refuse() -> int:
        raise device.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    device.cuda.runtime.getDeviceCount = refuse
    device.cuda.runtime.driverGetVersion = lambda: 11040
    device.cuda.runtime.runtimeGetVersion = lambda: cuda
    with pytest.raises(BackendUnavailableError) as caught:
        find_gpu(device, "tensorrt_rtx")
    assert "its driver is too old (it supports CUDA 11.4" in str(caught.value)
    assert str(caught.value).endswith(f"update the NVIDIA driver{fix}")
