"""What mask values mean: random clips against the masks they were made from, read right or refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.objects import MaskPicture, ObjectMasks, format_id, read_object, same_id

SEEDS = range(8)
VOC = np.uint8([[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]])


def read(clip: Any, object_id: Any = None, kind: Any = "auto", **fields: Any) -> ObjectMasks:
    return read_object([MaskPicture(frame, **fields) for frame in clip], "masks", object_id, kind)


def objects(rng: Any, count: int, size: tuple[int, int] = (80, 120)) -> Any:
    """Discs that move, bool [count, 3, h, w]; later ones cover earlier ones."""
    h, w = size
    y, x = np.mgrid[:h, :w]
    clip = np.zeros((3, h, w), int)
    for k in range(1, count + 1):
        middle, radius = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.1, 0.25) * h
        for t in range(3):
            clip[t][(y - middle[0] - 2 * t) ** 2 + (x - middle[1] - 3 * t) ** 2 < radius**2] = k
    return np.stack([clip == k for k in range(1, count + 1)])


def painted(masks: Any, values: Any) -> Any:
    """Masks [N, T, h, w] painted with one value or colour each."""
    values = np.asarray(values)
    clip = np.zeros((*masks.shape[1:], *values.shape[1:]), values.dtype)
    for mask, value in zip(masks, values, strict=True):
        clip[mask] = value
    return clip


def jpeg(frame: Any, quality: int) -> Any:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def each(clip: Any, change: Callable[[Any], Any]) -> Any:
    return np.stack([change(frame) for frame in clip])


# One object.


@pytest.mark.parametrize("high", [1, 3, 128, 200, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float32])
def test_one_value_besides_0_is_the_object(high: int, dtype: Any) -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    got = read((mask * high).astype(dtype))
    assert (got.kind, got.notes) == ("binary", [])
    np.testing.assert_array_equal(got.masks, mask)


def test_bool_and_the_ends_of_wider_ranges_are_binary() -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    for clip in (mask, mask * np.uint16(65535), mask * 0.4, mask * np.int64(1 << 40), mask.astype(">u2")):
        np.testing.assert_array_equal(read(clip).masks, mask)
    assert read(np.full((2, 4, 5), 255, np.uint8)).masks.all()
    assert not read(np.zeros((2, 4, 5), np.uint8)).masks.any()


def test_the_only_value_may_be_given_as_id_and_no_other() -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    np.testing.assert_array_equal(read(mask * np.uint8(255), "255").masks, mask)
    with pytest.raises(InputError, match=r"masks holds no object 1; `object_id` can be 255 \(0 is the background\)"):
        read(mask * np.uint8(255), 1)


# Ids.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_levels_that_fill_areas_are_ids(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    ids = rng.choice(np.arange(1, min(np.iinfo(dtype).max, 1 << 20)), count, replace=False).astype(dtype)
    masks = objects(rng, count)
    masks = masks[masks.any(axis=(1, 2, 3))]
    ids = ids[: len(masks)]
    clip = painted(masks, ids)
    with pytest.raises(InputError, match=r"; pick one with `object_id`"):
        read(clip)
    for mask, one in zip(masks, ids.tolist(), strict=True):
        got = read(clip, str(one))
        assert got.kind == "ids"
        np.testing.assert_array_equal(got.masks, mask)


@pytest.mark.parametrize("ids", [[20, 160, 220], [1, 2, 255], [240, 255], [254, 255]])
def test_ids_near_the_ends_of_the_range_are_not_noise(ids: list[int]) -> None:
    masks = objects(np.random.default_rng(5), len(ids))
    with pytest.raises(InputError, match=rf"holds {len(ids)} objects \({', '.join(map(str, ids))}\); pick one"):
        read(painted(masks, np.uint8(ids)))


def test_frames_are_read_in_one_way() -> None:
    first, second = objects(np.random.default_rng(1), 2)
    clip = np.stack([first[0] * np.uint8(255), *painted(np.stack([first, second])[:, 1:], np.uint8([1, 2]))])
    with pytest.raises(InputError, match=r"3 objects \(1, 2, 255\)"):
        read(clip)


def test_without_a_background_nothing_is_guessed() -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    clip = np.where(mask, np.uint8(200), np.uint8(100))
    with pytest.raises(InputError, match=r"2 objects \(100, 200\) and no background of 0; pick one"):
        read(clip)
    np.testing.assert_array_equal(read(clip, 200).masks, mask)
    with pytest.raises(InputError, match="single value 7, so it does not tell the object from its surroundings"):
        read(np.full((1, 4, 5), 7, np.uint8))


def test_negative_ids_are_listed_and_never_taken_alone() -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    with pytest.raises(InputError, match="only 0 and -1, and a negative value often means pixels left out"):
        read((mask * np.uint8(255)).view(np.int8))
    clip = mask.astype(np.int64)
    clip[:, 0] = -1
    with pytest.raises(InputError, match=r"2 objects \(-1, 1\), of which -1 often means pixels left out"):
        read(clip)
    np.testing.assert_array_equal(read(clip, 1).masks, mask)


def test_declared_ids_are_ids_whatever_they_look_like() -> None:
    masks = objects(np.random.default_rng(3), 2)
    palette = np.uint8([[0, 0, 0], [128, 0, 0]])
    clip = painted(masks, np.uint8([1, 255]))
    with pytest.raises(InputError, match="of which 255 is often not an object but pixels left out; pick one"):
        read(clip, ids=True, palette=palette)
    np.testing.assert_array_equal(read(clip, 1, ids=True, palette=palette).masks, masks[0])
    only = read(clip * (clip == 255), ids=True, palette=palette)
    assert "the only id is 255" in only.notes[0]


def test_palettes_that_number_colours_anew_in_each_frame_are_colours() -> None:
    red, green = np.uint8([[0, 0, 0], [200, 0, 0], [0, 200, 0]]), np.uint8([[0, 0, 0], [0, 200, 0], [200, 0, 0]])
    masks = objects(np.random.default_rng(3), 2)
    first = MaskPicture(painted(masks, np.uint8([1, 2]))[0], None, True, red)
    second = MaskPicture(painted(masks, np.uint8([2, 1]))[1], None, True, green)
    got = read_object([first, second], "masks", "200,0,0")
    assert got.kind == "colours"
    np.testing.assert_array_equal(got.masks, masks[0, :2])


# Soft masks.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sigma", [0.5, 1, 3, 6])
def test_blurred_masks_are_cut_at_half_of_the_range(seed: int, sigma: float) -> None:
    (mask,) = objects(np.random.default_rng(seed), 1, (160, 240))
    soft = each(mask * np.float32(1), lambda frame: cv2.GaussianBlur(frame, (0, 0), sigma))
    for clip, half in ((np.rint(soft * 255).astype(np.uint8), 128), (soft, 0.5)):
        got = read(clip)
        assert got.kind == "matte"
        np.testing.assert_array_equal(got.masks, clip > half)
    wide = np.rint(soft * 65535).astype(np.uint16)
    np.testing.assert_array_equal(read(wide).masks, wide > 32768)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_mask_saved_as_jpeg_is_what_it_was(seed: int, quality: int) -> None:
    (mask,) = objects(np.random.default_rng(seed), 1)
    clip = each(mask * np.uint8(255), lambda frame: jpeg(frame, quality))
    np.testing.assert_array_equal(read(clip).masks, clip > 128)
    np.testing.assert_array_equal(read(clip, lossy=True).masks, clip > 128)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "soften",
    [lambda frame: jpeg(frame, 75), lambda frame: cv2.resize(frame, (60, 40), interpolation=cv2.INTER_AREA)],
)
def test_ids_with_soft_edges_are_refused_with_both_readings(seed: int, soften: Any) -> None:
    masks = objects(np.random.default_rng(seed), 3)
    clip = each(painted(masks, np.uint8([90, 170, 250])), soften)
    with pytest.raises(InputError, match=r"can be read in two ways: .*`mask_kind=\"ids\"` or `mask_kind=\"matte\"`"):
        read(clip)
    np.testing.assert_array_equal(read(clip, kind="matte").masks, clip > 128)
    np.testing.assert_array_equal(read(clip, 90, "ids").masks, clip == 90)


def test_a_soft_mask_has_no_ids() -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    clip = each(mask * np.uint8(255), lambda frame: cv2.GaussianBlur(frame, (0, 0), 1))
    with pytest.raises(InputError, match="holds a soft mask, whose values are no ids; leave out `object_id`"):
        read(clip, 255)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint16, 4095), (np.uint16, 255), (np.uint8, 150), (np.float32, 0.6)])
def test_a_soft_mask_that_ends_below_its_range_is_refused_with_both_halves(dtype: Any, top: float) -> None:
    (mask,) = objects(np.random.default_rng(0), 1)
    soft = each(mask * np.float64(top), lambda frame: cv2.GaussianBlur(frame, (0, 0), 1.5))
    soft = (np.rint(soft) if top > 1 else soft).astype(dtype)
    with pytest.raises(InputError, match=rf"its values end at {top:g} where the type goes to .* above {top / 2:g};"):
        read(soft)


def test_pictures_noise_and_impossible_floats_are_refused() -> None:
    rng = np.random.default_rng(0)
    photo = cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8), (0, 0), 2)
    for clip, sentence in (
        (rng.integers(0, 256, (2, 30, 40)).astype(np.uint8), "not like masks"),
        (photo[None], "not like masks"),
        (photo[None, ..., 0], "masks"),
        (np.full((1, 4, 4), np.nan), "NaN"),
        (rng.normal(size=(1, 9, 9)), "may be logits"),
        (rng.uniform(0, 37, (1, 9, 9)), "fractions and values up to"),
        (painted(objects(rng, 3), np.float32([0.1, 0.5, 0.9])), r"fill areas at 0.102, 0.502, 0.902"),
    ):
        with pytest.raises(InputError, match=sentence):
            read(clip)


# Colours.


@pytest.mark.parametrize("seed", SEEDS)
def test_flat_colours_on_black_are_ids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = objects(rng, 4)
    colours = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    clip = painted(masks, colours)
    for mask, colour in zip(masks, colours.tolist(), strict=True):
        if mask.any():
            for typed in (",".join(map(str, colour)), "#{:02x}{:02X}{:02x}".format(*colour)):
                got = read(clip, typed)
                assert (got.kind, got.notes) == ("colours", [])
                np.testing.assert_array_equal(got.masks, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_antialiased_colours_go_to_the_main_colour_around_them_and_that_is_said(seed: int) -> None:
    masks = objects(np.random.default_rng(seed), 3, (240, 360))
    sharp = painted(masks, VOC[:3])
    soft = each(sharp, lambda frame: cv2.resize(frame, (120, 80), interpolation=cv2.INTER_AREA))
    for colour, mask in zip(VOC[:3], masks, strict=True):
        share = each(mask * np.float32(1), lambda frame: cv2.resize(frame, (120, 80), interpolation=cv2.INTER_AREA))
        try:
            got = read(soft, ",".join(map(str, colour)))
        except InputError as error:
            refused = "blend into one another" in str(error)
            assert refused or mask.sum() < 2000  # a sliver that is hardly seen of a covered object
            continue
        assert "lie between the main colours" in got.notes[0]
        assert got.masks[share > 0.99].all()
        assert not got.masks[share == 0].any()


def test_one_colour_is_the_object_and_without_black_all_are_listed() -> None:
    masks = objects(np.random.default_rng(0), 2)
    (mask, _) = masks
    np.testing.assert_array_equal(read(painted(mask[None], VOC[:1])).masks, mask)
    clip = np.where(mask[..., None], VOC[0], VOC[1])
    with pytest.raises(InputError, match=r"by their colours \(#008000, #800000\) and no black background; pick one"):
        read(clip)
    np.testing.assert_array_equal(read(painted(masks, VOC[:2]), kind="binary").masks, masks.any(axis=0))


# Alpha.


@pytest.mark.parametrize("colours", ["white", "black", "photo"])
def test_alpha_that_varies_is_the_mask(colours: str) -> None:
    rng = np.random.default_rng(0)
    (mask,) = objects(rng, 1)
    photo = cv2.GaussianBlur(rng.integers(0, 256, (80, 120, 3)).astype(np.uint8), (0, 0), 1)
    rgb = {"white": np.full_like(photo, 255), "black": np.zeros_like(photo), "photo": photo}[colours]
    pictures = [MaskPicture(rgb, seen * np.uint8(255)) for seen in mask]
    got = read_object(pictures, "masks")
    assert got.kind == "alpha"
    np.testing.assert_array_equal(got.masks, mask)


def test_alpha_and_colours_that_disagree_are_refused_with_both() -> None:
    first, second = objects(np.random.default_rng(4), 2)
    grey = [MaskPicture(seen * np.uint8(255), other * np.uint8(255)) for seen, other in zip(first, second, strict=True)]
    with pytest.raises(InputError, match=r"two ways: .*`mask_kind=\"alpha\"` or `mask_kind=\"ids\"`"):
        read_object(grey, "masks")
    np.testing.assert_array_equal(read_object(grey, "masks", kind="alpha").masks, second)
    np.testing.assert_array_equal(read_object(grey, "masks", kind="ids").masks, first)
    clip = painted(np.stack([first, second]), VOC[:2])
    ids = [MaskPicture(frame, frame.any(axis=-1) * np.uint8(255)) for frame in clip]
    with pytest.raises(InputError, match="its colours are those of 2 objects"):
        read_object(ids, "masks")
    np.testing.assert_array_equal(read_object(ids, "masks", "#800000").masks, first)
    with pytest.raises(InputError, match="has no alpha that varies"):
        read(first, kind="alpha")


# What is typed.


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (3, "3", True),
        (3, "003", True),
        (-1, "-1", True),
        (3, "4", False),
        ("car_1", "car_1", True),
        ("car_1", "Car_1", False),
        ("3", "003", False),
        ("#ff0000", "255,0,0", True),
        ("#ff0000", "(255, 0, 0)", True),
        ("#ff0000", "FF0000", True),
        ("#ff0000", "#ff0001", False),
        ("#000001", 1, False),
        ("#ff0000", "256,0,0", False),
        ("abcdef", "ABCDEF", False),
    ],
)
def test_ids_are_the_same_however_they_are_typed(a: Any, b: Any, same: bool) -> None:
    assert same_id(a, b) is same
    assert same_id(b, a) is same
    assert same_id(a, format_id(a))


def test_an_id_and_a_kind_without_ids_contradict_each_other() -> None:
    with pytest.raises(InputError, match=r"masks read with `mask_kind=\"binary\"` have no ids; leave out `object_id`"):
        read(np.ones((1, 2, 2), np.uint8), 1, "binary")
