"""`amodal run --crop`, compared with the window run by hand; objects that become too small; clips that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.runtime.pictures.cropping import Crop
from amodal.runtime.scenes import make_scene, write_scene

from .conftest import QUICK, assert_refusal, issue

Refused = Callable[..., str]
SIZE = (120, 200)


def write(folder: Path, pictures: Any) -> Path:
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


def clip_on_disk(root: Path, rgb: Any, modal: Any, depth: Any = None) -> tuple[str, ...]:
    """Options of `amodal run` for arrays."""
    options = [
        "--frames",
        str(write(root / "frames", rgb)),
        "--masks",
        str(write(root / "masks", modal * np.uint8(255))),
    ]
    return (*options, "--depth", str(write(root / "depth", depth))) if depth is not None else tuple(options)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    """Three frames with an object of 16x20 pixels that moves."""
    rng = np.random.default_rng(5)
    modal = np.zeros((3, *SIZE), bool)
    for t in range(3):
        modal[t, 60:76, 30 + 5 * t : 50 + 5 * t] = True
    rgb = rng.integers(0, 256, (3, *SIZE, 3), np.uint8)
    return {"rgb": rgb, "modal": modal, "depth": rng.integers(0, 65536, modal.shape).astype(np.uint16)}


@pytest.fixture(scope="module")
def small(arrays: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return clip_on_disk(tmp_path_factory.mktemp("small"), **arrays)


def pictures_in(folder: Path) -> Any:
    return np.stack([np.asarray(Image.open(folder / f"{index}.png")) for index in range(3)])


def result_of(out: Path) -> Any:
    return json.loads((out / "result.json").read_text())


def test_a_window_is_run_and_its_results_are_put_back(
    toy_bundle: Path, small: tuple[str, ...], arrays: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert issue("run", toy_bundle, *small, *QUICK, "--crop", "1.5", "--samples", "2", "-o", out).code == 0
    crop = Crop.around(arrays["modal"], 1.5)
    rgb, modal, depth = (np.ascontiguousarray(crop.cut(arrays[name])) for name in ("rgb", "modal", "depth"))
    with amodal.load(toy_bundle, threads=1) as model:
        seen = model.segment(modal, depth=depth.astype(np.float32), steps=2, samples=2)
        drawn = model.complete(rgb, modal, seen.masks, steps=2, seed=seen.noise)
    masks, completed = np.zeros((3, *SIZE), bool), np.full((3, *SIZE, 3), 255, np.uint8)
    for t, y, x in np.ndindex(3, *crop.size):
        masks[t, crop.y + y, crop.x + x] = seen.masks_full[t, y, x]
        completed[t, crop.y + y, crop.x + x] = drawn.frames_full[t, y, x]
    np.testing.assert_array_equal(pictures_in(out / "amodal_masks") > 0, masks)
    np.testing.assert_array_equal(pictures_in(out / "completed"), completed)
    assert pictures_in(out / "probability").shape == masks.shape
    result = result_of(out)
    assert result["settings"]["crop"] == 1.5
    assert result["crop"] == {
        "frame": list(SIZE), "y": crop.y, "x": crop.x, "height": crop.height, "width": crop.width,
    }  # fmt: skip
    assert Image.open(out / "overlay.gif").size[0] >= SIZE[1]


def test_auto_is_twice_the_box_of_a_small_object_and_off_is_the_default(
    toy_bundle: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    options = (*small, "--stage", "segment", "--steps", "1", "--threads", "1", "--no-overlay")
    for name, crop in (
        ("auto", ["--crop", "auto"]),
        ("two", ["--crop", "2"]),
        ("off", ["--crop", "off"]),
        ("none", []),
    ):
        assert issue("run", toy_bundle, *options, *crop, "-o", tmp_path / name).code == 0
    masks = {name: pictures_in(tmp_path / name / "amodal_masks") for name in ("auto", "two", "off", "none")}
    np.testing.assert_array_equal(masks["auto"], masks["two"])
    np.testing.assert_array_equal(masks["off"], masks["none"])
    assert (masks["auto"] != masks["off"]).any()
    assert "crop" in result_of(tmp_path / "auto")
    assert "crop" not in result_of(tmp_path / "off")


def test_a_large_object_is_run_whole(toy_bundle: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    modal = np.zeros((3, *SIZE), bool)
    modal[:, 20:100, 20:120] = True
    options = clip_on_disk(tmp_path / "clip", **{**arrays, "modal": modal})
    out = tmp_path / "out"
    issued = issue("run", toy_bundle, *options, "--stage", "segment", *QUICK, "--crop", "auto", "-o", out)
    assert issued.code == 0
    assert "crop" not in result_of(out)


def test_the_window_of_completion_alone_is_around_the_whole_object(
    toy_bundle: Path, arrays: dict[str, Any], tmp_path: Path
) -> None:
    amodal_masks = arrays["modal"].copy()
    amodal_masks[:, 60:80, 20:90] = True
    options = clip_on_disk(tmp_path / "clip", arrays["rgb"], arrays["modal"])
    whole = write(tmp_path / "whole", amodal_masks * np.uint8(255))
    out = tmp_path / "out"
    stage = ("--stage", "complete", "--amodal", whole, "--propagate", "--crop", "2")
    assert issue("run", toy_bundle, *options, *stage, *QUICK, "-o", out).code == 0
    result = result_of(out)
    crop = Crop.around(amodal_masks)
    assert (result["crop"]["height"], result["crop"]["width"]) == crop.size
    assert all(0 < share < 1 for share in result["known_share"])


def test_an_object_of_which_nothing_is_left_is_refused_and_a_window_is_not(
    toy_bundle: Path, refused: Refused, tmp_path: Path
) -> None:
    modal = np.zeros((3, 540, 960), bool)
    modal[:, 250:252, 450:452] = True
    depth = np.linspace(0, 65535, modal.size).reshape(modal.shape).astype(np.uint16)
    options = clip_on_disk(tmp_path / "clip", np.full((*modal.shape, 3), 90, np.uint8), modal, depth)
    shared = (*options, "--stage", "segment", *QUICK, "--no-overlay")
    sentence = refused("run", toy_bundle, *shared)
    assert "at most 4 visible pixels" in sentence
    assert "540x960" in sentence
    assert "64x64" in sentence
    assert "--crop auto" in sentence
    out = tmp_path / "cropped"
    outcome = issue("run", toy_bundle, *shared, "--crop", "auto", "-o", out)
    assert outcome.code == 0
    assert not any("visible pixels" in warning for warning in result_of(out)["warnings"])


def test_an_object_that_becomes_small_is_a_warning_that_names_frames_and_option(
    toy_bundle: Path, arrays: dict[str, Any], tmp_path: Path
) -> None:
    modal = arrays["modal"].copy()
    modal[1] = False
    modal[1, 60:66, 40:46] = True
    options = (*clip_on_disk(tmp_path / "clip", **{**arrays, "modal": modal}), "--stage", "segment", *QUICK)
    outcome = issue("run", toy_bundle, *options, "--no-overlay", "-o", tmp_path / "out")
    (warning,) = outcome.err.strip().splitlines()
    assert "Fewer than 16 visible pixels" in warning
    assert "in frame 1;" in warning
    assert "--crop auto" in warning
    assert len(result_of(tmp_path / "out")["warnings"]) == 1


def test_a_padded_frame_leaves_less_of_the_object(toy_bundle: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    modal = arrays["modal"] & False
    modal[:, 60:72, 40:52] = True  # 6x4 pixels are left, and 4x3 of the padded frame
    options = (*clip_on_disk(tmp_path / "clip", **{**arrays, "modal": modal}), "--stage", "segment", *QUICK)
    whole = issue("run", toy_bundle, *options, "--no-overlay", "-o", tmp_path / "whole")
    assert (whole.code, whole.err) == (0, "")
    padded = issue("run", toy_bundle, *options, "--no-overlay", "--pad", "-o", tmp_path / "padded")
    assert "Fewer than 16 visible pixels" in padded.err
    assert "--crop" not in padded.err, "the two do not go together"


def test_a_crop_that_is_none_or_meets_pad_is_refused(
    toy_bundle: Path, small: tuple[str, ...], refused: Refused
) -> None:
    for crop in ("0.5", "large", "nan", "-2", "inf", ""):
        assert "is not auto, off or a number of 1 or more" in refused("run", toy_bundle, *small, "--crop", crop)
    sentence = refused("run", toy_bundle, *small, "--crop", "auto", "--pad")
    assert "--crop" in sentence
    assert "--pad" in sentence


@pytest.mark.parametrize("video", [False, True])
def test_real_video_on_the_default_bundle_is_one_message_with_all_it_lacks(video: bool, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), np.uint8)
    options = clip_on_disk(tmp_path, rgb, np.ones((10, 64, 64), bool))
    if video:
        writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 8, (64, 64))
        for frame in rgb:
            writer.write(frame)
        writer.release()
        options = ("--frames", str(tmp_path / "v.avi"), *options[2:])
    outcome = issue("run", "default", *options, "-o", tmp_path / "OUT")
    assert_refusal(outcome)
    for part in (
        "drawn scenes",
        "no depth is given",
        "amodal export --help",
        "or give --depth DIR, and expect poor masks",
        "detail of photographs",
        "frames of 64x64 are stretched 2.0 times in width",
    ):
        assert part in outcome.err, outcome.err


def test_a_long_clip_unlike_the_scenes_is_run_with_a_warning(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (10, 64, 128, 3), np.uint8)
    options = clip_on_disk(tmp_path, rgb, np.ones((10, 64, 128), bool), rgb[..., 0])
    more = ("--stage", "segment", "--steps", "1", "--threads", "1", "-o", tmp_path / "OUT")
    outcome = issue("run", "default", *options, *more)
    assert outcome.code == 0, outcome.err
    assert "detail of photographs" in outcome.err
    assert len(list((tmp_path / "OUT" / "amodal_masks").iterdir())) == 10


def test_a_clip_unlike_the_scenes_is_one_warning_and_a_scene_is_none(tmp_path: Path) -> None:
    scene = make_scene(4)
    write_scene(tmp_path / "scene", scene)
    options = ("--stage", "segment", "--steps", "1", "--threads", "1", "--no-overlay")

    def run(folder: Path, name: str) -> Any:
        inputs = [word for kind in ("frames", "masks", "depth") for word in (f"--{kind}", folder / kind)]
        outcome = issue("run", "default", *inputs, *options, "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
        return outcome.err.strip().splitlines(), result_of(tmp_path / name)["warnings"]

    assert run(tmp_path / "scene", "drawn") == ([], [])
    noise = np.random.default_rng(1).normal(0, 25, scene.frames.shape)
    real = np.clip(scene.frames + noise, 0, 255).astype(np.uint8)
    clip_on_disk(tmp_path / "real", real, scene.modal, (scene.depth * 65535).astype(np.uint16))
    (line,), (warning,) = run(tmp_path / "real", "noisy")
    assert "knows only drawn scenes of shapes that pass behind one another" in warning
    assert "training 0.048 to 1.4)" in warning
    assert "`amodal export --help`" in line
