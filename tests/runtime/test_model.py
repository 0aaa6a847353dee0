"""The Python face: its parity with the authors' pipeline, and what it does with every kind of input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amodal
from amodal import Churn, NoiseStream
from amodal.runtime.bundle.manifest import MANIFEST_NAME
from amodal.runtime.errors import BackendError, BackendUnavailableError, InputError, NonFiniteError
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.schedule import karras_sigmas


def relative_l2(got: Any, want: Any) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def iou(got: Any, want: Any) -> float:
    union = (got | want).sum()
    return float((got & want).sum() / union) if union else 1.0


class Trace(list[Any]):
    """A callback that keeps a copy of what it sees: (step, sigma, latents)."""

    def __call__(self, step: int, sigma: float, latents: Any) -> None:
        assert step == len(self)
        self.append((step, sigma, np.array(latents)))

    @property
    def latents(self) -> list[Any]:
        return [latents for _, _, latents in self]


def blocks(rng: np.random.Generator, shape: tuple[int, ...], size: tuple[int, int]) -> Any:
    """Random values in [-1, 1], the same over patches, so that CLIP tells the frames apart."""
    coarse = rng.uniform(-1, 1, (*shape, 4, 4))
    rows, columns = (np.arange(n) * 4 // n for n in size)
    return coarse[..., rows[:, None], columns].astype(np.float32)


def clip_of(frames: int, size: tuple[int, int], seed: int = 0) -> dict[str, Any]:
    """Prepared inputs: modal and depth [T, H, W], rgb [T, 3, H, W]."""
    rng = np.random.default_rng(seed)
    modal = np.clip(3 * blocks(rng, (frames,), size), -1, 1)
    modal[:, :2] = -1
    return {"modal": modal, "depth": blocks(rng, (frames,), size), "rgb": blocks(rng, (frames, 3), size)}


# Parity with what the authors' own code recorded. `tests/test_parity.py` has a case that lies in this repository.


@pytest.fixture(scope="module")
def birdcage(reference_bundle: Path, recorded: dict[str, Any]) -> dict[str, Any]:
    """Both stages in one stream, the second from the recorded amodal masks."""
    traces = {"segment": Trace(), "complete": Trace()}
    modal, depth, rgb = (recorded[name] for name in ("modal", "depth", "rgb"))
    with amodal.load(reference_bundle) as model:
        seen = model.segment(modal, depth=depth, seed=23, callback=traces["segment"])
        amodal_masks = recorded["amodal_masks"] > 0
        whole = model.complete(rgb, modal, amodal_masks, seed=seen.noise, callback=traces["complete"])
    return {"segment": seen, "complete": whole, "traces": traces}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_every_recorded_latent_of_both_stages_is_reached(
    stage: str, birdcage: dict[str, Any], recorded: dict[str, Any]
) -> None:
    drawn = birdcage["traces"][stage].latents
    assert len(drawn) == 25
    steps = recorded["segment_latents_steps"]
    errors = [relative_l2(drawn[s], want) for s, want in zip(steps, recorded[f"{stage}_latents"], strict=True)]
    assert max(errors) <= 1e-5, errors


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_pictures_differ_from_the_recorded_ones_by_two_levels_at_most(
    stage: str, birdcage: dict[str, Any], recorded: dict[str, Any]
) -> None:
    difference = np.abs(birdcage[stage].frames.astype(int) - recorded[f"{stage}_frames_u8"])
    assert difference.max() <= 2
    assert difference.mean() <= 0.05


@pytest.mark.slow
def test_amodal_masks_are_the_recorded_ones(birdcage: dict[str, Any], recorded: dict[str, Any]) -> None:
    assert iou(birdcage["segment"].masks, recorded["amodal_masks"] > 0) >= 0.9995


# Parity with the independent pipeline on torch and diffusers.


@dataclass(frozen=True)
class Case:
    """A checkpoint, how it is exported and how it is run.

    `checkpoint` goes to `make_checkpoint`, `export` to `ExportSettings`, `run` to both pipelines; `reference` is what
    the torch pipeline is told instead. The quick run leaves out what is `slow`.
    """

    frames: int
    size: tuple[int, int]
    checkpoint: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    seed: int = 23
    unsigned: bool = False
    both: bool = False
    slow: bool = False


SMALL: dict[str, Any] = {"block_out_channels": (32, 64), "heads": (2, 4), "vae_channels": (32, 32, 32)}
# Not fewer than 3 steps: a step from sigma 700 to 0.002 leaves the rounding of numbers near 700 in latents near 1.
CASES = {
    "14 frames, a VAE of factor 4, a ramp, 10 steps, 2 fps": Case(
        14,
        (16, 24),
        {**SMALL, "seed": 3, "vae_channels": (32, 64, 32)},
        run={"steps": 10, "guidance": (1.0, 2.5), "fps": 2},
        both=True,
        slow=True,
    ),
    "other widths and depths, a VAE of factor 8, a stock U-Net": Case(
        4,
        (32, 64),
        {
            "block_out_channels": (32, 96, 64),
            "heads": (1, 3, 2),
            "layers_per_block": 2,
            "cross_attention_dim": 48,
            "addition_time_embed_dim": 16,
            "vae_layers_per_block": 2,
            "clip_width": 96,
            "clip_layers": 3,
            "clip_heads": 3,
            "clip_act": "gelu",
            "authors_format": False,
        },
        run={"steps": 4},
        seed=2**40 + 7,
        both=True,
        slow=True,
    ),
    "the layout aligned": Case(
        5, (16, 24), SMALL, {"context": "aligned"}, {"steps": 3}, {"context": "aligned"}, slow=True
    ),
    "aligned, asked of a bundle for reference": Case(
        4, (16, 24), SMALL, run={"steps": 3, "context": "aligned"}, slow=True
    ),
    "reference, asked of a bundle for aligned": Case(
        5, (16, 24), SMALL, {"context": "aligned"}, {"steps": 3, "context": "reference"}
    ),
    "the layout sequence": Case(4, (16, 24), SMALL, {"context": "sequence"}, {"steps": 3}, {"context": "sequence"}),
    "sequence without guidance": Case(
        5,
        (16, 24),
        SMALL,
        {"context": "sequence"},
        {"steps": 3, "guidance": (1.0, 1.0)},
        {"context": "sequence"},
        slow=True,
    ),
    "no guidance": Case(3, (16, 24), SMALL, run={"steps": 3, "guidance": (0.3, 1.0)}, both=True, slow=True),
    "churn": Case(
        3,
        (16, 24),
        SMALL,
        run={"steps": 6, "churn": Churn(s_churn=3.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003)},
        reference={"churn": (3.0, 0.05, 50.0, 1.003)},
        both=True,
    ),
    "three frames decoded at once": Case(7, (16, 24), SMALL, run={"steps": 3, "decode_chunk": 3}, slow=True),
    "a bundle that decodes two frames at once": Case(
        5, (16, 24), SMALL, {"decode_chunk": 2}, {"steps": 3}, {"decode_chunk": 2}, slow=True
    ),
    "frames without a negative value": Case(4, (16, 24), SMALL, run={"steps": 3}, unsigned=True, both=True, slow=True),
    "a single frame": Case(1, (16, 24), SMALL, run={"steps": 3}, both=True, slow=True),
}


def without_negatives(clip: dict[str, Any]) -> None:
    """Frames that diffusers' preprocessing takes for [0, 1]: of every condition, the last of them with a 0."""
    for name, frames in (("modal", (1,)), ("depth", (0, 3)), ("rgb", (2, 3))):
        for frame in frames:
            clip[name][frame] = 0.2 + 0.6 * np.abs(clip[name][frame])
        clip[name][frames[-1]].flat[-1] = 0.0


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * c.slow) for n, c in CASES.items()])
def test_both_stages_equal_the_torch_pipeline(name: str, exporter: Any, tmp_path: Path) -> None:
    import torch

    from amodal.bench.reference import pipeline as reference
    from amodal.export.checkpoints.checkpoint import read_checkpoint

    from ..checkpoints import make_checkpoint, reference_pipeline

    case = CASES[name]
    clip = clip_of(case.frames, case.size, seed=case.seed % 1000)
    if case.unsigned:
        without_negatives(clip)
        assert clip["depth"].min() < 0, "the clip as a whole is signed, as prepared depth must be"
    stages = ("segment", "complete") if case.both else ("segment",)
    folders = {stage: make_checkpoint(tmp_path / stage, stage=stage, **case.checkpoint) for stage in stages}
    bundle = exporter(
        tmp_path / "bundle",
        {stage: read_checkpoint(folder) for stage, folder in folders.items()},
        size=case.size,
        frames=case.frames,
        **case.export,
    )

    generator = torch.Generator().manual_seed(case.seed)
    options = {**case.run, **case.reference}
    modal, depth = (np.repeat(clip[key][:, None], 3, axis=1) for key in ("modal", "depth"))
    wanted = {"segment": reference_pipeline(folders["segment"])(modal, depth, generator=generator, **options)}
    masks = reference.amodal_masks(wanted["segment"].frames_u8, clip["modal"])
    if case.both:
        signed = np.repeat(np.where(masks, np.float32(1), np.float32(-1))[:, None], 3, axis=1)
        wanted["complete"] = reference_pipeline(folders["complete"])(
            reference.modal_rgb(clip["rgb"], clip["modal"]), signed, generator=generator, **options
        )

    traces = {stage: Trace() for stage in stages}
    with amodal.load(bundle) as model:
        seen = model.segment(clip["modal"], depth=clip["depth"], seed=case.seed, callback=traces["segment"], **case.run)
        got = {"segment": seen.frames}
        if case.both:
            got["complete"] = model.complete(
                clip["rgb"], clip["modal"], masks, seed=seen.noise, callback=traces["complete"], **case.run
            ).frames
    for stage in stages:
        pairs = zip(traces[stage].latents, wanted[stage].latents, strict=True)
        errors = [relative_l2(latents, want.numpy()) for latents, want in pairs]
        assert max(errors) <= 1e-5, (stage, errors)
        difference = np.abs(got[stage].astype(int) - wanted[stage].frames_u8)
        assert difference.max() <= 2
        assert difference.mean() <= 0.05
    assert iou(seen.masks, masks) >= 0.9995


# A toy: 3 frames of 64x64, both stages, no depth component.


@pytest.fixture(scope="module")
def toy(toy_bundle: Path) -> Iterator[amodal.Model]:
    with amodal.load(toy_bundle) as model:
        yield model


@pytest.fixture(scope="module")
def clip() -> dict[str, Any]:
    return clip_of(3, (64, 64))


@pytest.fixture(scope="module")
def seen(toy: amodal.Model, clip: dict[str, Any]) -> amodal.Segmentation:
    return toy.segment(clip["modal"], depth=clip["depth"], steps=2)


def traced(model: amodal.Model, clip: dict[str, Any], stage: str = "segment", **options: Any) -> tuple[Any, Trace]:
    trace, options = Trace(), {"steps": 2, **options}
    if stage == "segment":
        return model.segment(clip["modal"], depth=clip["depth"], callback=trace, **options), trace
    amodal_masks = clip["modal"] > -0.5
    return model.complete(clip["rgb"], clip["modal"], amodal_masks, callback=trace, **options), trace


# Results and their callback.


def test_results_have_the_documented_types_and_shapes(toy: amodal.Model, clip: dict[str, Any]) -> None:
    seen, _ = traced(toy, clip)
    assert (seen.masks.dtype, seen.masks.shape) == (bool, (3, 64, 64))
    assert (seen.frames.dtype, seen.frames.shape) == (np.uint8, (3, 64, 64, 3))
    assert isinstance(seen.noise, NoiseStream)
    whole, _ = traced(toy, clip, "complete")
    assert (whole.frames.dtype, whole.frames.shape) == (np.uint8, (3, 64, 64, 3))
    for result in (seen, whole):
        ran = {"image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder"}
        assert ran <= set(result.timings) <= ran | {"load"}
        assert 0 < sum(result.timings.values()) <= result.seconds


def test_masks_are_the_bright_pixels_and_the_visible_ones(seen: amodal.Segmentation, clip: dict[str, Any]) -> None:
    expected = (seen.frames.astype(int).sum(axis=-1) > 600) | (clip["modal"] > 0)
    np.testing.assert_array_equal(seen.masks, expected)


@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_the_callback_sees_every_step_of_the_schedule(stage: str, toy: amodal.Model, clip: dict[str, Any]) -> None:
    _, trace = traced(toy, clip, stage, steps=4)
    assert [step for step, _, _ in trace] == [0, 1, 2, 3]
    np.testing.assert_array_equal([sigma for _, sigma, _ in trace], karras_sigmas(4, 0.002, 700.0)[:-1])
    assert all(latents.shape == (3, 4, 8, 8) and latents.dtype == np.float32 for latents in trace.latents)


def test_the_same_call_gives_the_same_result_and_another_seed_another(
    toy: amodal.Model, clip: dict[str, Any], seen: amodal.Segmentation
) -> None:
    again, _ = traced(toy, clip)
    other, _ = traced(toy, clip, seed=24)
    np.testing.assert_array_equal(again.frames, seen.frames)
    assert (other.frames != seen.frames).any()


# One noise stream for both stages.


def test_the_second_stage_goes_on_where_the_first_left_the_stream(toy: amodal.Model, clip: dict[str, Any]) -> None:
    churn = Churn(s_churn=1.0)
    seen, _ = traced(toy, clip, churn=churn)
    stream = NoiseStream(23)
    for shape in ((3, 1, 3, 64, 64), (3, 1, 3, 64, 64), *[(1, 3, 4, 8, 8)] * 3):  # both images, latents, two steps
        stream.randn(shape)
    expected, _ = traced(toy, clip, "complete", seed=stream)
    got, _ = traced(toy, clip, "complete", seed=seen.noise)
    np.testing.assert_array_equal(got.frames, expected.frames)
    afresh, _ = traced(toy, clip, "complete", seed=23)
    assert (afresh.frames != got.frames).any()


def test_a_stream_that_is_handed_in_stays_as_it_was(toy: amodal.Model, clip: dict[str, Any]) -> None:
    seen, _ = traced(toy, clip)
    results = [traced(toy, clip, "complete", seed=seen.noise)[0] for _ in range(2)]
    np.testing.assert_array_equal(results[0].frames, results[1].frames)
    left = [result.noise.randn((20,)) for result in results]
    np.testing.assert_array_equal(left[0], left[1])
    assert (seen.noise.randn((20,)) != left[0]).any()


# Numbers of frames.


@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_fewer_frames_are_padded_with_the_last_and_the_result_is_trimmed(
    stage: str, toy: amodal.Model, clip: dict[str, Any]
) -> None:
    short = {name: array[:2] for name, array in clip.items()}
    padded = {name: np.concatenate([array[:2], array[1:2]]) for name, array in clip.items()}
    got, trace = traced(toy, short, stage)
    expected, longer = traced(toy, padded, stage)
    np.testing.assert_array_equal(got.frames, expected.frames[:2])
    assert len(got.frames) == 2
    for mine, theirs in zip(trace.latents, longer.latents, strict=True):
        np.testing.assert_array_equal(mine, theirs[:2])
    np.testing.assert_array_equal(got.noise.randn((20,)), expected.noise.randn((20,)))
    if stage == "segment":
        np.testing.assert_array_equal(got.masks, expected.masks[:2])
        assert len(got.masks_full) == 2


@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_too_many_frames_are_refused_with_the_number_that_fits(stage: str, toy: amodal.Model) -> None:
    with pytest.raises(InputError, match=r"has 4 frames, this bundle takes at most 3; .*--frames 4"):
        traced(toy, clip_of(4, (64, 64)), stage)


def test_numbers_of_frames_that_differ_are_refused(toy: amodal.Model, clip: dict[str, Any]) -> None:
    modal, depth, rgb = clip["modal"], clip["depth"], clip["rgb"]
    with pytest.raises(InputError, match="modal has 3 frames and depth has 2"):
        toy.segment(modal, depth=depth[:2])
    with pytest.raises(InputError, match="rgb has 3 frames and modal has 2"):
        toy.complete(rgb, modal[:2], modal > 0)
    with pytest.raises(InputError, match="rgb has 3 frames and amodal has 1"):
        toy.complete(rgb, modal, modal[:1] > 0)


# Sizes.


def test_raw_inputs_of_any_size_come_back_at_their_own_size(toy: amodal.Model) -> None:
    rng = np.random.default_rng(0)
    modal = np.zeros((3, 50, 90), np.uint8)
    modal[:, 10:30, 20:60] = 255
    seen = toy.segment(modal, depth=rng.uniform(0, 9, (3, 30, 40)), steps=1)
    assert seen.masks.shape == (3, 64, 64)
    assert (seen.masks_full.dtype, seen.masks_full.shape) == (bool, (3, 50, 90))
    rows, columns = (np.arange(n) * 64 // n for n in (50, 90))
    np.testing.assert_array_equal(seen.masks_full, seen.masks[:, rows[:, None], columns])

    rgb = rng.integers(0, 256, (3, 100, 180, 3), dtype=np.uint8)
    whole = toy.complete(rgb, modal, seen.masks, steps=1)
    assert whole.frames.shape == (3, 64, 64, 3)
    assert (whole.frames_full.dtype, whole.frames_full.shape) == (np.uint8, (3, 100, 180, 3))


def test_prepared_inputs_come_back_at_the_bundles_size(toy: amodal.Model, clip: dict[str, Any]) -> None:
    seen, _ = traced(toy, clip, steps=1)
    whole, _ = traced(toy, clip, "complete", steps=1)
    np.testing.assert_array_equal(seen.masks_full, seen.masks)
    np.testing.assert_array_equal(whole.frames_full, whole.frames)


# Depth.


@pytest.fixture(scope="module")
def depth_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from amodal.export.checkpoints.checkpoint import random_checkpoint
    from amodal.export.depth_anything.network import random_depth

    stages = {"segment": random_checkpoint("tiny", "segment")}
    folder = tmp_path_factory.mktemp("depth") / "bundle"
    return exporter(folder, stages, random_depth("tiny", seed=5), size=(64, 64), frames=2)


def test_depth_comes_from_the_frames_where_the_bundle_has_a_depth_component(depth_bundle: Path) -> None:
    import cv2
    import torch

    from amodal.export.depth_anything.network import random_depth

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    # The authors' demo, line by line: truncated bytes, channels swapped, 518 on the shorter side.
    relative = []
    for frame in rgb.astype(np.float32) / np.float32(127.5) - np.float32(1):
        demo = ((frame + 1) / 2 * 255).astype(np.uint8)
        image = cv2.resize(demo[..., ::-1] / 255.0, (518, 518), interpolation=cv2.INTER_CUBIC)
        pixels = ((image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None]
        with torch.no_grad():
            drawn = random_depth("tiny", seed=5)(torch.from_numpy(pixels.astype(np.float32)))
        relative.append(torch.nn.functional.interpolate(drawn[None], (64, 64), mode="bilinear", align_corners=True))
    maps = torch.cat(relative)[:, 0].numpy()
    expected = (maps - maps.min()) / (maps.max() - maps.min()) * 2 - 1

    modal = rgb[..., 0] > 128
    with amodal.load(depth_bundle) as model:
        got = model.depth(rgb)
        assert got.dtype == np.float32
        assert relative_l2(got, expected) <= 1e-4
        from_rgb = model.segment(modal, rgb=rgb, steps=1)
        from_depth = model.segment(modal, depth=got, steps=1)
        np.testing.assert_array_equal(from_rgb.frames, from_depth.frames)
        assert from_rgb.timings["depth"] > 0
        with pytest.raises(InputError, match="modal has 2 frames and rgb has 1"):
            model.segment(modal, rgb=rgb[:1])
        with pytest.raises(
            InputError, match="no complete stage, only segment; export it again with `amodal export --complete"
        ):
            model.complete(rgb, modal, modal)


@pytest.mark.parametrize("rgb", [None, ["0001.png", "0002.png"], np.zeros(5, np.uint8), 3], ids=str)
def test_what_is_no_clip_of_pictures_is_refused(rgb: Any, toy: amodal.Model, clip: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"rgb has shape .* expected uint8 \[T, h, w, 3\]"):
        toy.complete(rgb, clip["modal"], clip["modal"] > 0)
    with pytest.raises(InputError, match=r"padding: pictures are of shape \(.*\), expected 64x64"):
        toy.complete(rgb, clip["modal"], clip["modal"] > 0, padding=Padding(64, 64))


def test_without_depth_and_without_frames_there_is_no_segmentation(toy: amodal.Model, clip: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="segment needs depth, or rgb to compute it from"):
        toy.segment(clip["modal"])


def test_a_bundle_without_a_depth_component_says_so(toy: amodal.Model, clip: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"has no depth component; pass `depth`.*--depth"):
        toy.segment(clip["modal"], rgb=clip["rgb"])


# CFG rows, memory and threads.


def test_cfg_rows_in_one_call_or_one_by_one_or_side_by_side_are_the_same(
    toy: amodal.Model, clip: dict[str, Any]
) -> None:
    runs = [traced(toy, clip, cfg_rows=rows, steps=3) for rows in ("batched", "separate", "auto")]
    (first, trace), *others = runs
    for result, other in others:
        assert max(relative_l2(a, b) for a, b in zip(other.latents, trace.latents, strict=True)) <= 1e-5
        assert np.abs(result.frames.astype(int) - first.frames).max() <= 1


class Shop:
    """Stands in for a backend's `load`, and knows which components are loaded at any time."""

    def __init__(self, model: amodal.Model, monkeypatch: pytest.MonkeyPatch, spoil: Any = None) -> None:
        self._load, self._spoil = model.backend.load, spoil
        self.loaded: list[str] = []
        self.most = 0
        self.ever: list[str] = []
        monkeypatch.setattr(model.backend, "load", self.load)

    def load(self, entry: Any, files: Any, lanes: int = 1) -> Any:
        executable = self._load(entry, files, lanes)
        self.loaded.append(entry.kind)
        self.ever.append(entry.kind)
        self.most = max(self.most, len(self.loaded))
        return Watched(self, entry.kind, executable)


class Watched:
    """An executable whose outputs may be spoilt, and whose closing is noticed."""

    def __init__(self, shop: Shop, kind: str, executable: Any) -> None:
        self.shop, self.kind, self.executable, self.calls = shop, kind, executable, 0

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.map([inputs])[0]

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        outputs = self.executable.map(batches)
        if self.shop._spoil is not None:
            self.shop._spoil(self.kind, self.calls, outputs)
        self.calls += 1
        return list(outputs)

    def close(self) -> None:
        if self.executable is not None:
            self.shop.loaded.remove(self.kind)
            self.executable.close()
            self.executable = None


def test_sequential_memory_holds_one_component_at_a_time_and_draws_the_same(
    toy_bundle: Path, toy: amodal.Model, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with amodal.load(toy_bundle, memory="sequential") as model:
        shop = Shop(model, monkeypatch)
        for stage in ("segment", "complete"):
            got, trace = traced(model, clip, stage)
            assert shop.loaded == []
            expected, other = traced(toy, clip, stage, cfg_rows="batched")
            for mine, theirs in zip(trace.latents, other.latents, strict=True):
                np.testing.assert_array_equal(mine, theirs)
            np.testing.assert_array_equal(got.frames, expected.frames)
    assert shop.most == 1
    order = ["image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder"]
    assert shop.ever == 2 * order


def test_resident_memory_loads_every_component_once_and_gives_all_back(
    toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with amodal.load(toy_bundle) as model:
        shop = Shop(model, monkeypatch)
        for _ in range(2):
            traced(model, clip, steps=1)
        assert sorted(shop.loaded) == sorted(set(shop.ever)) == sorted(shop.ever)
        assert len(shop.ever) == 5
    assert shop.loaded == []


def test_a_component_that_fails_is_given_back_in_sequential_memory(
    toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kind: str, call: int, outputs: Any) -> None:
        if kind == "unet":
            raise BackendError("out of luck")

    with amodal.load(toy_bundle, memory="sequential") as model:
        shop = Shop(model, monkeypatch, fail)
        with pytest.raises(BackendError, match="out of luck"):
            traced(model, clip)
        assert shop.loaded == []


def test_one_thread_draws_the_same(toy_bundle: Path, clip: dict[str, Any], seen: amodal.Segmentation) -> None:
    with amodal.load(toy_bundle, threads=1) as model:
        assert model.backend.describe()["threads"] == "1"
        got, _ = traced(model, clip)
    assert np.abs(got.frames.astype(int) - seen.frames).max() <= 1


def test_only_one_row_is_computed_without_guidance(
    toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def count(kind: str, call: int, outputs: Any) -> None:
        if kind == "unet":
            rows.append(sum(len(out["velocity"]) for out in outputs))

    with amodal.load(toy_bundle) as model:
        Shop(model, monkeypatch, count)
        for guidance in ((1.0, 1.0), (0.0, 0.5), (1.0, 1.5)):
            traced(model, clip, guidance=guidance)
    assert rows == [1, 1, 1, 1, 2, 2]


# Half precision.


@pytest.fixture(scope="module")
def half_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": random_checkpoint("tiny", "segment")}
    folder = tmp_path_factory.mktemp("half") / "bundle"
    return exporter(folder, stages, size=(64, 64), frames=3, precision="fp16")


@pytest.mark.slow
def test_a_half_precision_bundle_runs_and_is_near_the_full_one(
    half_bundle: Path, toy: amodal.Model, clip: dict[str, Any]
) -> None:
    with amodal.load(half_bundle) as model:
        assert model.config.noise_dtype == "float16"
        got, trace = traced(model, clip, steps=4)
    expected, other = traced(toy, clip, steps=4)
    errors = [relative_l2(a, b) for a, b in zip(trace.latents, other.latents, strict=True)]
    assert 1e-5 < errors[0] < 2e-3, "one step: the rounding of weights and noise"
    assert max(errors) < 5e-2, errors
    assert np.abs(got.frames.astype(int) - expected.frames).mean() < 3
    assert iou(got.masks, expected.masks) > 0.99


# Failures.


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("stage", "poison"), [("segment", np.nan), ("complete", np.inf)])
def test_latents_that_are_not_finite_stop_the_run_and_the_step_is_named(
    stage: str, poison: float, toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(kind: str, call: int, outputs: Any) -> None:
        if kind == "unet" and call == 2:
            outputs[-1]["velocity"][0, 1, 2, 3, 4] = poison

    with amodal.load(toy_bundle, memory="sequential") as model:
        Shop(model, monkeypatch, spoil)
        with pytest.raises(NonFiniteError, match="after step 2") as caught:
            traced(model, clip, stage, steps=5)
    assert caught.value.step == 2
    assert caught.value.sigma == pytest.approx(float(karras_sigmas(5, 0.002, 700.0)[2]))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_not_drawn(
    poison: float, toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(kind: str, call: int, outputs: Any) -> None:
        if kind == "vae_decoder":
            outputs[-1]["frames"][0, 1, 2, 3] = poison

    with amodal.load(toy_bundle, memory="sequential") as model:
        Shop(model, monkeypatch, spoil)
        with pytest.raises(NonFiniteError, match="VAE decoder"):
            traced(model, clip, "segment", steps=2)


def test_weights_that_are_not_finite_stop_the_first_step(
    toy_bundle: Path, clip: dict[str, Any], tmp_path: Path
) -> None:
    bundle = shutil.copytree(toy_bundle, tmp_path / "bundle")
    weights = bundle / "graphs" / "segment_unet.onnx.data"
    values = np.fromfile(weights, np.float32)
    values[: values.size // 2] = np.nan
    values.tofile(weights)
    with amodal.load(bundle, verify=False) as model, pytest.raises(NonFiniteError, match="after step 0"):
        traced(model, clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "0 steps"),
        ({"guidance": (1.0, float("nan"))}, r"guidance .* is not finite"),
        ({"guidance": (float("inf"), 1.0)}, r"guidance .* is not finite"),
        ({"fps": 0}, "fps 0: expected"),
        ({"fps": float("inf")}, "fps inf: expected"),
        ({"decode_chunk": 0}, "decode chunk 0: expected"),
        ({"cfg_rows": "both"}, "cfg_rows 'both' is unknown"),
        ({"context": "sequence"}, "--context sequence"),
        ({"context": "mine"}, "context layout 'mine' is unknown"),
        ({"seed": 1.5}, "seed"),
    ],
)
@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_settings_out_of_range_are_refused(
    stage: str, options: dict[str, Any], message: str, toy: amodal.Model, clip: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message):
        traced(toy, clip, stage, **options)


@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_a_stage_that_was_not_exported_is_named_with_its_option(
    stage: str, toy_bundle: Path, clip: dict[str, Any], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "graphs").symlink_to(toy_bundle / "graphs")
    document = json.loads((toy_bundle / MANIFEST_NAME).read_text())
    del document["tasks"][stage]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    with amodal.load(bundle) as model, pytest.raises(InputError, match=f"no {stage} stage, .* --{stage} CHECKPOINT"):
        traced(model, clip, stage)


def test_a_closed_model_does_not_run(toy_bundle: Path, clip: dict[str, Any]) -> None:
    with amodal.load(toy_bundle) as model:
        pass
    model.close()
    with pytest.raises(BackendError, match="closed; load the bundle again"):
        traced(model, clip)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"backend": "tensorrt_rtz"},
            BackendUnavailableError,
            "'tensorrt_rtz' is unknown .*auto or one of onnxruntime",
        ),
        ({"device": "tpu"}, BackendUnavailableError, "no device 'tpu'"),
        ({"threads": 0}, InputError, "0 threads "),
        ({"memory": "half"}, InputError, "'half' is unknown; expected resident or sequential"),
    ],
)
def test_a_way_of_loading_that_is_not_there_is_refused(
    options: dict[str, Any], error: type[Exception], message: str, toy_bundle: Path
) -> None:
    with pytest.raises(error, match=message):
        amodal.load(toy_bundle, **options)


def test_a_backend_whose_library_is_missing_is_an_error_and_no_fallback(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .*amodal\[cpu\]"):
        amodal.load(toy_bundle, "onnxruntime")
    with pytest.raises(BackendUnavailableError, match="no backend is usable here"):
        amodal.load(toy_bundle, "auto")


def test_auto_picks_a_backend_that_is_usable_here(toy_bundle: Path) -> None:
    with amodal.load(toy_bundle, "auto") as model:
        assert model.backend.describe()["name"] == "onnxruntime"
