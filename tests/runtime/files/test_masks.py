from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.masks import check_seen, fit_masks, read_masks

from ...places import SHARED

# The first colours of the VOC palette, which DAVIS uses: none of 1 to 6 is brighter than 128 as grey.
DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128]


def ids_clip(*ids: int) -> Any:
    """[3, 8, 10] with one 2x2 square per id, moving; the last frame is empty."""
    clip = np.zeros((3, 8, 10), np.uint8)
    for k, value in enumerate(ids):
        clip[0, 2 * k : 2 * k + 2, :2] = value
        clip[1, 2 * k : 2 * k + 2, 4:6] = value
    return clip


def soft_edge() -> Any:
    """A row [300]: black, the grey levels between, white."""
    return np.r_[np.zeros(150, np.uint8), np.arange(1, 255, 4, dtype=np.uint8), np.full(86, 255, np.uint8)]


def save_clip(folder: Path, clip: Any, palette: list[int] | None = None, mode: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(clip):
        image = Image.fromarray(values)
        if palette is not None:
            image.putpalette(palette)
        if mode is not None:
            image = image.convert(mode)
        image.save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "LA"])
def test_black_and_white_masks_of_any_mode_are_read(tmp_path: Path, mode: str) -> None:
    clip = ids_clip(255)
    masks = read_masks(save_clip(tmp_path, clip, mode=mode))
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, clip == 255)


def test_the_object_is_what_is_brighter_than_128(tmp_path: Path) -> None:
    clip = np.tile(soft_edge(), (2, 3, 1))
    assert np.array_equal(read_masks(save_clip(tmp_path, clip)), clip > 128)


def test_if_the_maximum_of_the_clip_is_1_then_1_is_the_object(tmp_path: Path) -> None:
    clip = ids_clip(1)
    assert np.array_equal(read_masks(save_clip(tmp_path / "a", clip)), clip == 1)
    clip[1, 7, 7] = 200
    with pytest.raises(InputError, match=r"holds 2 objects \(1, 200\)"):
        read_masks(save_clip(tmp_path / "b", clip))


def test_sixteen_bit_masks_are_read(tmp_path: Path) -> None:
    clip = ids_clip(1).astype(np.uint16)
    assert np.array_equal(read_masks(save_clip(tmp_path / "a", clip * 65535)), clip == 1)
    assert np.array_equal(read_masks(save_clip(tmp_path / "b", clip * 300), object_id=300), clip == 1)


@pytest.mark.parametrize("value", [1, 2, 6, 7])
def test_the_single_id_of_a_davis_palette_is_the_object_however_dark_its_colour(tmp_path: Path, value: int) -> None:
    clip = ids_clip(value)
    folder = save_clip(tmp_path, clip, DAVIS)
    assert np.asarray(Image.open(folder / "0.png").convert("L")).max() <= 128
    assert np.array_equal(read_masks(folder), clip == value)
    assert np.array_equal(read_masks(folder, object_id=value), clip == value)


def test_several_ids_of_a_palette_need_object(tmp_path: Path) -> None:
    clip = ids_clip(1, 3, 2)
    folder = save_clip(tmp_path, clip, DAVIS)
    with pytest.raises(InputError, match=r"holds 3 objects \(1, 2, 3\); pick one with `object_id`"):
        read_masks(folder)
    assert np.array_equal(read_masks(folder, object_id=3), clip == 3)


@pytest.mark.parametrize("wrong", [0, 4, -1, 999])
def test_an_id_that_is_not_there_lists_those_that_are(tmp_path: Path, wrong: int) -> None:
    folder = save_clip(tmp_path, ids_clip(1, 10, 2), DAVIS + [9] * 60)
    with pytest.raises(InputError, match=rf"holds no object {wrong}; `object_id` can be 1, 2, 10"):
        read_masks(folder, object_id=wrong)


def test_a_palette_without_objects_is_empty_and_left_to_check_seen(tmp_path: Path) -> None:
    assert not read_masks(save_clip(tmp_path, ids_clip(), DAVIS)).any()


def test_a_grey_palette_is_read_like_the_grey_picture_it_shows(tmp_path: Path) -> None:
    clip = np.tile(soft_edge(), (2, 3, 1))
    ramp = [level for i in range(256) for level in (i, i, i)]
    assert np.array_equal(read_masks(save_clip(tmp_path / "a", clip, ramp)), clip > 128)
    falling = [level for i in range(256) for level in (255 - i, 255 - i, 255 - i)]
    assert np.array_equal(read_masks(save_clip(tmp_path / "b", 255 - clip, falling)), clip > 128)


def test_a_two_colour_palette_of_black_and_white_is_a_picture(tmp_path: Path) -> None:
    clip = ids_clip(1)
    assert np.array_equal(read_masks(save_clip(tmp_path, clip, [0, 0, 0, 255, 255, 255])), clip == 1)


def test_soft_edges_dithered_into_the_web_palette_are_read_as_the_reference_reads_them(
    tmp_path: Path,
) -> None:
    soft = np.tile(soft_edge()[::8], (2, 12, 1))
    expected = []
    for i, values in enumerate(soft):
        image = Image.fromarray(values).convert("RGB").convert("P")
        image.save(tmp_path / f"{i}.png")
        expected.append(np.asarray(image.convert("L")) > 128)
    assert len(np.unique(np.asarray(image))) > 4
    assert np.array_equal(read_masks(tmp_path), np.stack(expected))


def test_a_frame_without_palette_among_palette_frames_counts_by_value(tmp_path: Path) -> None:
    clip = ids_clip(2)
    save_clip(tmp_path, clip, DAVIS)
    Image.fromarray(clip[2]).save(tmp_path / "2.png")
    assert np.array_equal(read_masks(tmp_path), clip == 2)


def test_grey_values_serve_as_ids_too(tmp_path: Path) -> None:
    clip = ids_clip(1, 2, 200)
    assert np.array_equal(read_masks(save_clip(tmp_path, clip), object_id=2), clip == 2)
    assert np.array_equal(read_masks(save_clip(tmp_path, clip, mode="RGB"), object_id=2), clip == 2)


def test_grey_values_that_can_only_be_ids_ask_for_object(tmp_path: Path) -> None:
    folder = save_clip(tmp_path, ids_clip(1, 2, 11))
    with pytest.raises(InputError, match=r"holds 3 objects \(1, 2, 11\); pick one with `object_id`, or .*`mask_kind="):
        read_masks(folder)


def test_colours_are_ids_and_can_be_typed_as_they_are_listed(tmp_path: Path) -> None:
    save_clip(tmp_path, ids_clip(1, 2), DAVIS, mode="RGB")
    with pytest.raises(InputError, match=r"2 objects by their colours \(#008000, #800000\); pick one with `object_id`"):
        read_masks(tmp_path)
    assert np.array_equal(read_masks(tmp_path, object_id="#800000"), ids_clip(1))
    assert np.array_equal(read_masks(tmp_path, object_id="0,128,0"), ids_clip(1, 2) == 2)


def test_one_folder_per_object_as_sam_2_writes_it_is_picked_by_id(tmp_path: Path) -> None:
    clip = ids_clip(1, 2)
    for value in (1, 2):
        save_clip(tmp_path / f"{value:03d}", (clip == value).astype(np.uint8), DAVIS)
    assert np.array_equal(read_masks(tmp_path, object_id=2), clip == 2)
    with pytest.raises(InputError, match=r"holds 2 objects \(1, 2\); pick one with `object_id`"):
        read_masks(tmp_path)
    with pytest.raises(InputError, match=r"holds no object 3; `object_id` can be 1, 2"):
        read_masks(tmp_path, object_id=3)


def test_masks_of_different_sizes_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_clip(tmp_path / "mixed", [np.zeros((4, 6), np.uint8), np.zeros((4, 5), np.uint8)])
    with pytest.raises(InputError, match=r"1\.png is 5 wide and 4 high but 0\.png is 6 wide "):
        read_masks(tmp_path / "mixed")
    with pytest.raises(InputError, match=r"nowhere does not exist; expected a folder of mask images, "):
        read_masks(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"empty is an empty folder; "):
        read_masks(tmp_path / "empty")


def test_a_truncated_mask_is_named(tmp_path: Path) -> None:
    folder = save_clip(tmp_path, np.random.default_rng(0).integers(0, 256, (2, 50, 50)).astype(np.uint8))
    data = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(data[:-900])
    with pytest.raises(InputError, match=r"1\.png cannot be read as an image, "):
        read_masks(folder)


@pytest.mark.parametrize(
    "stored",
    [
        {"masks": ids_clip(1) == 1},
        {"whatever": ids_clip(255)},
        {"modal": ids_clip(1), "amodal": np.ones((3, 8, 10), np.uint8)},
        {"masks": ids_clip(1).astype(np.int64)[:, None], "scores": np.zeros(3)},
    ],
)
def test_numpy_archives_of_masks_are_read(tmp_path: Path, stored: dict[str, Any]) -> None:
    np.savez_compressed(tmp_path / "m.npz", **stored)
    assert np.array_equal(read_masks(tmp_path / "m.npz"), ids_clip(1) == 1)


def test_ids_and_the_amodal_key_are_picked_from_numpy_archives(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", ids_clip(4, 9))
    assert np.array_equal(read_masks(tmp_path / "m.npy", object_id=9), ids_clip(4, 9) == 9)
    np.savez(tmp_path / "m.npz", modal=ids_clip(1), amodal=ids_clip(1, 1))
    assert np.array_equal(read_masks(tmp_path / "m.npz", key="amodal"), ids_clip(1, 1) == 1)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (
            {"a": np.zeros(3), "b": np.zeros(3)},
            r"holds the arrays a, b; expected a single one, or one named modal",
        ),
        ({"a": np.zeros((8, 10), np.uint8)}, r"an array of shape \[8, 10\]; expected \[T, H, W\]"),
        ({"a": np.full((3, 8, 10), -0.5)}, r"holds floats from -0.5 to -0.5, which may be logits"),
        ({"a": np.zeros((3, 8, 10), complex)}, r"holds complex128 values; expected bool, integers or floats"),
    ],
)
def test_wrong_archives_say_what_they_hold(tmp_path: Path, stored: dict[str, Any], sentence: str) -> None:
    np.savez(tmp_path / "m.npz", **stored)
    with pytest.raises(InputError, match=r"m\.npz .*" + sentence):
        read_masks(tmp_path / "m.npz")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.mat").touch()
    with pytest.raises(InputError, match=r"m\.mat is not a supported kind of file; give a folder of mask"):
        read_masks(tmp_path / "m.mat")


@pytest.mark.parametrize(
    ("own", "frames", "fits"),
    [
        ((45, 80), (45, 80), True),
        ((480, 854), (1080, 1920), True),
        ((1080, 1920), (480, 854), True),
        ((27, 48), (1080, 1920), True),
        ((256, 512), (1080, 1920), False),
        ((22, 80), (45, 80), False),
        ((80, 45), (45, 80), False),
    ],
)
def test_masks_of_the_frames_shape_are_resized_and_others_refused(
    own: tuple[int, int], frames: tuple[int, int], fits: bool
) -> None:
    masks = np.ones((1, *own), np.bool_)
    if not fits:
        with pytest.raises(InputError, match=f"frames are {frames[1]} wide and .* masks are {own[1]} wide"):
            fit_masks(masks, frames)
        return
    fitted, notes = fit_masks(masks, frames)
    assert fitted.shape[1:] == frames
    assert len(notes) == (own != frames)


def test_an_object_seen_in_no_frame_is_an_error_and_in_some_a_warning() -> None:
    masks = np.ones((6, 4, 6), np.bool_)
    masks[:, 2:] = False
    assert check_seen(masks) == []
    masks[[0, 3, 4, 5]] = False
    assert check_seen(masks) == ["The masks show the object in 2 of 6 frames; not in frame 0, 3-5."]
    with pytest.raises(InputError, match=r"None of the 6 masks shows the object; .*`object_id`"):
        check_seen(np.zeros_like(masks))


@pytest.mark.parametrize("clip", ["birdcage", "soccer"])
def test_the_authors_demo_masks_are_read_as_their_code_reads_them(clip: str) -> None:
    folder = SHARED / "samples" / clip / "masks"
    if not folder.is_dir():
        pytest.skip("the shared samples are not here")
    masks = read_masks(folder)
    expected = [np.asarray(Image.open(path).convert("L")) > 128 for path in sorted(folder.glob("*.png"))]
    assert np.array_equal(masks, np.stack(expected))
