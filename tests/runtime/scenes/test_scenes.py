"""Scenes: what their arrays promise of one another, what they show over many, and their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.depth import read_depth
from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.masks import read_masks
from amodal.runtime.pictures.images import prepare_depth
from amodal.runtime.scenes import Scene, make_scene, make_things, write_scene
from amodal.runtime.scenes.world import make_world

SEEDS = range(0, 60, 4)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in SEEDS]


def test_shapes_and_dtypes(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.frames.shape == scene.whole.shape == (8, 64, 128, 3)
        assert scene.modal.shape == scene.amodal.shape == scene.depth.shape == (8, 64, 128)
        assert (scene.frames.dtype, scene.whole.dtype, scene.depth.dtype) == (np.uint8, np.uint8, np.float32)
        assert (scene.modal.dtype, scene.amodal.dtype) == (bool, bool)
        assert 0 <= scene.depth.min() <= scene.depth.max() <= 1


def test_what_is_seen_is_part_of_the_whole_and_has_its_colours(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert not (scene.modal & ~scene.amodal).any()
        # Away from its edges, where pixels mix, the object has one look, seen or alone.
        inner = np.stack([cv2.erode(m.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for m in scene.modal])
        if inner.any():
            apart = np.abs(scene.frames[inner].astype(int) - scene.whole[inner].astype(int))
            assert np.quantile(apart, 0.99) <= 12
        outside = np.stack([cv2.dilate(a.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0 for a in scene.amodal])
        assert (scene.whole[outside] == 255).all()


def test_what_hides_is_nearer(scenes: list[Scene]) -> None:
    """Inside the hidden part, away from edges, depth is larger than the object's own where it shows itself."""
    for scene in scenes:
        for modal, amodal, depth in zip(scene.modal, scene.amodal, scene.depth, strict=True):
            hidden = cv2.erode((amodal & ~modal).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            seen = cv2.erode(modal.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            if hidden.any() and seen.any():
                assert depth[hidden].min() > np.median(depth[seen])


def leaves_frame(scene: Scene) -> Any:
    """Whether the object extends beyond the frame by a pixel or more, bool [T]."""
    height, width = scene.amodal.shape[1:]
    x, y, wide, high = scene.boxes.T
    return (x < -1) | (y < -1) | (x + wide > width + 1) | (y + high > height + 1)


def test_boxes_hold_the_mask_and_touch_it_where_the_object_is_inside(scenes: list[Scene]) -> None:
    for scene in scenes:
        for amodal, (x, y, width, height), leaving in zip(scene.amodal, scene.boxes, leaves_frame(scene), strict=True):
            rows, columns = np.nonzero(amodal)
            if rows.size == 0:
                continue
            drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert drawn[0] >= x - 1.5
            assert drawn[1] >= y - 1.5
            assert drawn[2] <= x + width + 1.5
            assert drawn[3] <= y + height + 1.5
            if not leaving:
                np.testing.assert_allclose(drawn, (x, y, x + width, y + height), atol=2)


def test_a_seed_makes_the_same_scene_and_another_seed_another() -> None:
    first, again, other = make_scene(3), make_scene(3), make_scene(4)
    for name in ("frames", "modal", "amodal", "depth", "whole", "boxes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.frames != other.frames).any()


def test_another_size_shows_the_same_world() -> None:
    for seed in (1, 2, 5):
        small, large = make_scene(seed), make_scene(seed, size=(128, 256))
        shrunk = np.stack(
            [cv2.resize(m.astype(np.float32), (128, 64), interpolation=cv2.INTER_AREA) for m in large.amodal]
        )
        both, either = (small.amodal & (shrunk > 0.5)).sum(), (small.amodal | (shrunk > 0.5)).sum()
        assert both / either > 0.9
        np.testing.assert_allclose(large.boxes, 2 * small.boxes, atol=1e-3)


@pytest.mark.parametrize("size", [(128, 64), (512, 288), (640, 480), (160, 16)])
def test_narrow_frames_keep_the_target_in_them(size: tuple[int, int]) -> None:
    for seed in range(6):
        world = make_world(np.random.default_rng(seed), 8, size[1] / size[0])
        centre = world.target.pose[:, :, 2]
        assert (centre[:, 0] >= 0).all()
        assert (centre[:, 0] <= size[1] / size[0]).all()
    assert make_scene(0, 2, size).amodal.any()


def test_the_world_moves(scenes: list[Scene]) -> None:
    moving = [np.abs(np.diff(scene.frames.astype(int), axis=0)).mean() > 0.5 for scene in scenes]
    assert np.mean(moving) > 0.9


def test_a_wider_view_shows_the_same_things_smaller() -> None:
    for seed in SEEDS[:6]:
        near, far = make_scene(seed, size=(64, 128)), make_scene(seed, size=(256, 512), zoom=4)
        np.testing.assert_allclose(far.boxes[:, 2:], near.boxes[:, 2:], atol=0.01)
        np.testing.assert_allclose(np.diff(far.boxes[:, :2], axis=0), np.diff(near.boxes[:, :2], axis=0), atol=0.01)
        # Where the near view's frame lies in the far one, the object looks the same, but for pixels at its edges.
        x, y = (far.boxes - near.boxes)[0, :2].round().astype(int)
        assert 0 <= x <= 512 - 128
        assert 0 <= y <= 256 - 64
        part = far.amodal[:, y : y + 64, x : x + 128]
        assert (part ^ near.amodal).sum() <= 0.15 * near.amodal.sum()
        assert not (far.modal & ~far.amodal).any()


@pytest.mark.parametrize("zoom", [0.5, float("nan"), float("inf")])
def test_a_view_that_is_not_wider_is_refused(zoom: float) -> None:
    with pytest.raises(InputError, match=r"zoom=.*expected a number of 1 or more"):
        make_scene(0, zoom=zoom)


@pytest.mark.slow
def test_three_hundred_scenes_hide_enough() -> None:
    """The figures that the scenes are to reach, as shares of frames."""
    hidden, leaving = [], []
    for seed in range(300):
        scene = make_scene(seed)
        hidden.append(1 - scene.visibility)
        leaving.append(leaves_frame(scene))
    shares = np.concatenate(hidden)
    assert (shares > 0.25).mean() >= 0.30
    assert (shares == 1).mean() >= 0.05
    assert np.concatenate(leaving).mean() >= 0.10


@pytest.mark.parametrize(("seed", "frames", "size"), [(-1, 8, (64, 128)), (0, 0, (64, 128)), (0, 8, (8, 128))])
def test_what_cannot_be_drawn_is_refused(seed: int, frames: int, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="expected a seed of 0 or more"):
        make_scene(seed, frames, size)


def speed(scene: Scene) -> float:
    """The median way of the middle of the object's box from one frame to the next, in pixels."""
    middles = scene.boxes[:, :2] + scene.boxes[:, 2:] / 2
    return float(np.median(np.linalg.norm(np.diff(middles, axis=0), axis=1)))


@pytest.mark.slow
def test_with_a_pace_a_long_scene_moves_as_a_short_one_and_goes_on_being_hidden() -> None:
    short, paced, slow = (
        [make_scene(seed, frames, (32, 64), pace=pace) for seed in range(40)]
        for frames, pace in ((8, None), (32, 8), (32, None))
    )
    speeds = [np.mean([speed(scene) for scene in scenes]) for scenes in (short, paced, slow)]
    assert 0.7 < speeds[1] / speeds[0] < 1.4
    assert speeds[2] / speeds[0] < 0.4
    hidden = [[(scene.visibility[t : t + 8] < 0.9).any() for scene in paced] for t in (0, 8, 16, 24)]
    assert np.mean(hidden, axis=1).min() > 0.5
    with pytest.raises(InputError, match="`pace=0`: expected frames"):
        make_scene(0, 32, pace=0)


def test_a_folder_holds_what_run_reads_and_the_truth(tmp_path: Path) -> None:
    scene = make_scene(6)
    write_scene(tmp_path, scene, fps=5)
    np.testing.assert_array_equal(read_frames(tmp_path / "frames"), scene.frames)
    np.testing.assert_array_equal(read_masks(tmp_path / "masks"), scene.modal)
    np.testing.assert_array_equal(read_masks(tmp_path / "truth" / "amodal_masks"), scene.amodal)
    depth = prepare_depth(read_depth(tmp_path / "depth"), (64, 128))
    np.testing.assert_allclose(depth, prepare_depth(scene.depth, (64, 128)), atol=1e-4)
    with Image.open(tmp_path / "truth" / "completed" / "0002.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), scene.whole[2])
    facts = json.loads((tmp_path / "scene.json").read_text())
    assert (facts["format"], facts["version"], facts["seed"], facts["fps"]) == ("amodal-scene", 1, 6, 5)
    np.testing.assert_allclose(facts["visibility"], scene.visibility, atol=1e-4)
    np.testing.assert_allclose(facts["boxes"], scene.boxes, atol=1e-2)
    assert len(set(facts["image_ids"])) == 8


def test_all_things_of_a_scene_are_those_that_hide_its_object() -> None:
    for seed in range(6):
        scene, things = make_scene(seed, 5), make_things(seed, 5)
        np.testing.assert_array_equal(things.depth, scene.depth)
        np.testing.assert_array_equal(things.frames, scene.frames)
        index = next(i for i in range(len(things.amodal)) if (things.amodal[i] == scene.amodal).all())
        np.testing.assert_array_equal(things.modal[index], scene.modal)
        np.testing.assert_array_equal(things.modal[-1], things.amodal[-1])  # nothing hides the nearest
        assert (things.modal.sum(axis=0) == things.amodal.any(axis=0)).all()  # each pixel shows one thing
