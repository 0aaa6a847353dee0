"""Whole masks from visible ones: of a picture, and of a clip picture by picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.results import Segmentation
from amodal.runtime.families.sameo.visible import boxes_of, points_on
from amodal.runtime.loading import load
from amodal.runtime.scenes import make_scene

SIZE = (80, 120)


@pytest.fixture(scope="module")
def clip() -> Any:
    return make_scene(8, 6, SIZE)


@pytest.fixture(scope="module")
def diffusion_vas() -> Iterator[Any]:
    with load("default") as loaded:
        yield loaded


def two_objects(clip: Any) -> Any:
    """The visible masks of two objects in six frames; the second is not seen in some of them."""
    other = np.zeros_like(clip.modal)
    other[2:4, 10:30, 20:50] = True
    return np.stack([clip.modal, other])


def test_a_box_ends_behind_the_last_pixel() -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 4:9, 7:20] = True
    masks[0, 3, 8] = True
    masks[1, 19, 29] = True
    np.testing.assert_array_equal(boxes_of(masks), [[7, 3, 20, 9], [29, 19, 30, 20], [0, 0, 0, 0]])


def test_points_lie_on_the_mask_and_far_apart() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:31, 5:56] = True
    mask[12:18, 10:14] = False
    points = points_on(mask, 4)
    assert all(mask[int(y), int(x)] for x, y in points)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(4, 1)]
    assert distances.min() > 15
    around = [np.hypot(*(points[0] - (x + 0.5, y + 0.5))) for y, x in np.argwhere(~mask)]
    assert min(around) > 10  # as deep inside as a strip of 21 pixels allows
    assert points_on(np.ones((1, 1), bool), 3).tolist() == [[0.5, 0.5]] * 3


def test_objects_are_predicted_from_the_boxes_of_their_visible_masks(model: Any, clip: Any) -> None:
    modal = two_objects(clip)[:, 2]
    assert modal.any(axis=(1, 2)).all()
    found = model.predict_from_masks(clip.frames[2], modal, scores=[0.5, 2], logits=True)
    expected = model.predict(clip.frames[2], boxes_of(modal), scores=[0.5, 2], logits=True)
    np.testing.assert_array_equal(found.masks, expected.masks | modal)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.score, expected.score)
    alone = model.predict_from_masks(clip.frames[2], modal, unite=False)
    np.testing.assert_array_equal(alone.masks, expected.masks)
    grey = model.predict_from_masks(clip.frames[2], modal * np.array([[[7]], [[255]]], np.uint8), unite=False)
    np.testing.assert_array_equal(grey.masks, expected.masks)


def test_points_on_the_visible_mask_go_with_its_box(model: Any, clip: Any) -> None:
    modal = clip.modal[2:3]
    found = model.predict_from_masks(clip.frames[2], modal, points=2, logits=True)
    points = points_on(modal[0], 2)[None]
    expected = model.predict(clip.frames[2], boxes_of(modal), points, [[1, 1]], logits=True)
    np.testing.assert_array_equal(found.logits, expected.logits)
    with pytest.raises(InputError, match="points 5: expected 0 to 4"):
        model.predict_from_masks(clip.frames[2], modal, points=5)


def test_an_object_that_is_not_seen_has_an_empty_mask(model: Any, clip: Any) -> None:
    modal = two_objects(clip)[::-1, 0]
    found = model.predict_from_masks(clip.frames[0], modal, select="all", scores=[1, 3])
    assert found.masks.shape == (2, 4, *SIZE)
    assert not found.masks[0].any()
    assert (found.iou[0] == 0).all()
    only = model.predict(clip.frames[0], boxes_of(modal[1:]), select="all", scores=[3])
    np.testing.assert_array_equal(found.score[1], only.score[0])
    assert not model.predict_from_masks(clip.frames[0], modal[:1], points=1).masks.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[0], r"modal has shape \[80, 120\]; .* write `modal\[None\]`"),
        (lambda m: m[:, :40], "modal is 40x120 and the picture 80x120"),
        (lambda m: m.astype(np.uint8) + 3 * np.eye(80, 120, dtype=np.uint8), "modal 0"),
    ],
)
def test_visible_masks_of_another_kind_are_refused(change: Any, message: str, model: Any, clip: Any) -> None:
    with pytest.raises(InputError, match=message):
        model.predict_from_masks(clip.frames[2], change(clip.modal[2:3]))


def test_a_clip_is_segmented_frame_by_frame(model: Any, clip: Any) -> None:
    modal = two_objects(clip)
    found = model.segment_objects({"a": modal[0], "b": modal[1]}, rgb=clip.frames)
    assert list(found) == ["a", "b"]
    assert set(found.timings) >= {"image_encoder", "mask_decoder"}
    for index, each in enumerate(found.values()):
        assert isinstance(each, Segmentation)
        assert (each.masks.shape, each.frames.shape) == ((6, *model.config.size), (6, *model.config.size, 3))
        for number in range(6):
            expected = model.predict_from_masks(clip.frames[number], modal[index, number][None])
            np.testing.assert_array_equal(each.masks_full[number], expected.masks[0])
            assert each.iou[number] == pytest.approx(expected.iou[0], abs=1e-5)
    alone = model.segment(modal[1], rgb=clip.frames, seed=9)
    np.testing.assert_array_equal(alone.masks_full, found["b"].masks_full)
    assert not alone.masks[[0, 1, 4, 5]].any()
    drawn = alone.frames[2:4, ..., 0] >= 128
    assert not (drawn & ~alone.masks[2:4]).any()
    unseen = model.segment_objects([("a", modal[0]), ("c", modal[1] & False)], rgb=clip.frames)
    assert unseen.empty == ("c",)


def test_masks_may_be_smaller_than_the_frames(model: Any, clip: Any) -> None:
    half = clip.modal[:, ::2, ::2]
    found = model.segment(half, rgb=clip.frames)
    assert found.masks_full.shape == half.shape
    whole = model.predict(clip.frames[2], 2 * boxes_of(half[2:3]))
    one = model.predict(clip.frames[2], 2 * boxes_of(half[2:3]), logits=True)
    assert found.iou[2] == pytest.approx(one.iou[0], abs=1e-5)
    assert np.abs(found.masks_full[2] ^ (whole.masks[0, ::2, ::2] | half[2])).mean() < 0.2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"depth": np.zeros((6, 8, 8))}, "depth"),
        ({"depth_kind": "metric"}, "depth_kind"),
        ({"steps": 3}, "steps"),
        ({"samples": 2}, "samples"),
        ({"to": "device"}, "to"),
        ({"callback": print}, "callback"),
    ],
)
def test_options_that_would_change_nothing_are_refused(options: Any, field: str, model: Any, clip: Any) -> None:
    with pytest.raises(InputError, match=f"`{field}`: a SAMEO bundle finds masks in each picture") as refused:
        model.segment(clip.modal, rgb=clip.frames, **options)
    assert refused.value.field == field


def test_clips_that_do_not_fit_together_are_refused(model: Any, clip: Any) -> None:
    with pytest.raises(InputError, match="needs rgb, the frames"):
        model.segment(clip.modal)
    with pytest.raises(InputError, match="rgb has 5 frames, the masks have 6"):
        model.segment(clip.modal, rgb=clip.frames[:5])
    with pytest.raises(InputError, match="expected one ratio of sides"):
        model.segment(clip.modal, rgb=clip.frames[:, :40])
    with pytest.raises(InputError, match="steps"):
        model.segment_objects({0: clip.modal}, rgb=clip.frames, steps=4)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, c: m.complete(c.frames, c.modal, c.amodal),
        lambda m, c: m.complete_objects(c.frames, {0: c.modal}, {0: c.amodal}),
        lambda m, c: m.depth(c.frames),
    ],
)
def test_what_diffusion_vas_alone_does_is_refused_in_a_sentence(call: Any, model: Any, clip: Any) -> None:
    with pytest.raises(InputError, match=r"is for bundles of Diffusion-VAS, and .* is of SAMEO, .*: use `predict`"):
        call(model, clip)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, c: m.predict(c.frames[0], [[1, 2, 30, 40]]),
        lambda m, c: m.predict_rle(c.frames[0], [[1, 2, 30, 40]]),
        lambda m, c: m.predict_pieces(c.frames[0], [[1, 2, 30, 40]]),
        lambda m, c: m.predict_from_masks(c.frames[0], c.modal[:1]),
        lambda m, c: m.encode(c.frames[0]),
        lambda m, c: m.encode_images(c.frames),
    ],
)
def test_what_sameo_alone_does_is_refused_in_a_sentence(call: Any, diffusion_vas: Any, clip: Any) -> None:
    with pytest.raises(InputError, match=r"is for bundles of SAMEO, and .* is of Diffusion-VAS, .*: use `segment`"):
        call(diffusion_vas, clip)
