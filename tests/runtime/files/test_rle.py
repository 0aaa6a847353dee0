from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.rle import decode_rle, encode_rle


def random_masks(count: int = 4, height: int = 7, width: int = 9, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((count, height, width)) > 0.6


def slow_runs(mask: Any) -> list[int]:
    """Column by column, pixel by pixel: zeros first, then ones, and so on."""
    runs, value = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if bool(mask[y, x]) != value:
                runs.append(0)
                value = not value
            runs[-1] += 1
    return runs


def slow_decode(runs: list[int], height: int, width: int) -> Any:
    mask, position = np.zeros((height, width), np.bool_), 0
    for k, length in enumerate(runs):
        for _ in range(length):
            mask[position % height, position // height] = k % 2 == 1
            position += 1
    return mask


def uncompressed(mask: Any) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": slow_runs(mask)}


def save(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (7, 9), (64, 48)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_rle_agrees_with_a_slow_run_length_decoder(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(1).random(shape) < share
    rle = encode_rle(mask)
    assert rle["size"] == list(shape)
    assert isinstance(rle["counts"], str)
    assert np.array_equal(decode_rle(rle), mask)
    assert np.array_equal(decode_rle(uncompressed(mask)), mask)
    assert np.array_equal(slow_decode(slow_runs(mask), *shape), mask)


def test_rle_agrees_with_pycocotools_on_long_runs() -> None:
    from pycocotools import mask as coco

    mask = np.zeros((700, 900), np.bool_)
    mask[100:600, 300:800] = True
    mask[::97, ::89] ^= True
    theirs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert encode_rle(mask)["counts"].encode() == theirs["counts"]
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)
    assert coco.area(theirs) == mask.sum()


@pytest.mark.parametrize(
    ("rle", "sentence"),
    [
        ({"size": [5, 5], "counts": ""}, "cover 0 pixels of 25"),
        ({"size": [5, 5], "counts": [10, 5]}, "cover 15 pixels of 25"),
        ({"size": [5, 5], "counts": [10, 16]}, "cover 26 pixels of 25"),
        ({"size": [5, 5], "counts": [30, -5]}, "list of whole numbers"),
        ({"size": [5, 5], "counts": [12.5, 12.5]}, "list of whole numbers"),
        ({"size": [5, 5], "counts": None}, "neither a string"),
        ({"size": [5, 5], "counts": "o"}, "truncated"),
        ({"size": [5, 5], "counts": "0\u00e90"}, "the character"),
        ({"size": [5], "counts": "0"}, r"not \[height, width\]"),
        ({"size": [0, 5], "counts": []}, r"not \[height, width\]"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, r"not \[height, width\]"),
    ],
)
def test_broken_rle_is_refused_and_the_frame_named(tmp_path: Path, rle: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode_rle(rle)
    good = {"size": [5, 5], "counts": [20, 5]}
    with pytest.raises(InputError, match=rf"m\.json has a broken mask in frame 1 .*{sentence}.*expected"):
        read_masks(save(tmp_path / "m.json", [good, rle]))


@pytest.mark.parametrize("encode", [encode_rle, uncompressed])
@pytest.mark.parametrize("wrap", [list, lambda r: {"masks": r}, lambda r: {"rles": r}, lambda r: {"segmentations": r}])
def test_a_list_of_rle_per_frame_is_read(tmp_path: Path, encode: Any, wrap: Any) -> None:
    masks = random_masks()
    masks[2] = False
    rles = [encode(mask) for mask in masks]
    rles[2] = None
    read = read_masks(save(tmp_path / "m.json", wrap(rles)))
    assert read.dtype == np.bool_
    assert np.array_equal(read, masks)


def test_a_mapping_of_frame_names_is_read_in_natural_order(tmp_path: Path) -> None:
    masks = random_masks(12)
    document = {f"frame_{i}.png": encode_rle(masks[i]) for i in reversed(range(12))}
    assert np.array_equal(read_masks(save(tmp_path / "m.json", document)), masks)


def test_youtube_vis_tracks_are_picked_by_their_id(tmp_path: Path) -> None:
    a, b = random_masks(seed=1), random_masks(seed=2)
    annotations = [
        {"id": 7, "video_id": 1, "category_id": 3, "segmentations": [encode_rle(m) for m in a]},
        {
            "id": 9,
            "video_id": 1,
            "category_id": 3,
            "segmentations": [None, *(uncompressed(m) for m in b[1:])],
        },
    ]
    b[0] = False
    for document in (
        annotations,
        {"videos": [{"id": 1, "height": 7, "width": 9}], "annotations": annotations},
    ):
        path = save(tmp_path / "m.json", document)
        assert np.array_equal(read_masks(path, object_id=7), a)
        assert np.array_equal(read_masks(path, object_id=9), b)
        with pytest.raises(InputError, match=r"m\.json holds 2 objects \(7, 9\); pick one with `object_id`"):
            read_masks(path)
        with pytest.raises(InputError, match=r"m\.json holds no object 3; `object_id` can be 7, 9"):
            read_masks(path, object_id=3)


def test_youtube_vis_results_without_ids_are_counted_from_0(tmp_path: Path) -> None:
    a, b = random_masks(seed=1), random_masks(seed=2)
    path = save(tmp_path / "m.json", [{"segmentations": [encode_rle(m) for m in clip]} for clip in (a, b)])
    assert np.array_equal(read_masks(path, object_id=1), b)


@pytest.mark.parametrize("field", ["category_id", "track_id", "object_id", "instance_id"])
def test_coco_annotations_are_gathered_per_object_and_ordered_by_image(tmp_path: Path, field: str) -> None:
    a, b = random_masks(12, seed=1), random_masks(12, seed=2)
    annotations = [
        {"id": 100 * k + i, "image_id": i, field: k, "segmentation": encode_rle(clip[i])}
        for k, clip in ((1, a), (2, b))
        for i in reversed(range(12))
        if not (k == 2 and i == 5)
    ]
    b[5] = False
    images = [{"id": i, "file_name": f"frame_{i}.png"} for i in reversed(range(12))]
    for document in (annotations, {"images": images, "annotations": annotations}):
        path = save(tmp_path / "m.json", document)
        assert np.array_equal(read_masks(path, object_id=1), a)
        assert np.array_equal(read_masks(path, object_id=2), b)
        with pytest.raises(InputError, match=r"holds 2 objects \(1, 2\)"):
            read_masks(path)


def test_coco_images_of_other_videos_are_left_out_and_frame_numbers_give_the_order(tmp_path: Path) -> None:
    masks = random_masks(3)
    images = [
        {"id": 10, "video_id": 1, "frame_id": 2, "file_name": "a"},
        {"id": 11, "video_id": 1, "frame_id": 1, "file_name": "b"},
        {"id": 12, "video_id": 2, "frame_id": 1, "file_name": "c"},
        {"id": 13, "video_id": 1, "frame_id": 0, "file_name": "d"},
    ]
    order = (13, 11, 10)
    annotations = [
        {"image_id": image, "track_id": 5, "segmentation": encode_rle(mask)}
        for image, mask in zip(order, masks, strict=True)
    ]
    annotations.append({"image_id": 12, "track_id": 6, "segmentation": encode_rle(masks[0])})
    path = save(tmp_path / "m.json", {"images": images, "annotations": annotations})
    assert np.array_equal(read_masks(path, object_id=5), masks)
    assert np.array_equal(read_masks(path, object_id=6), masks[:1])


def test_two_annotations_of_one_category_in_one_image_are_ambiguous(tmp_path: Path) -> None:
    annotation = {"image_id": 4, "category_id": 1, "segmentation": encode_rle(random_masks()[0])}
    with pytest.raises(InputError, match=r"two annotations of object 1 for image 4; expected a track_id"):
        read_masks(save(tmp_path / "m.json", [annotation, annotation]))


def test_polygons_are_drawn_at_the_size_of_the_images_or_the_frames(tmp_path: Path) -> None:
    square = [[2, 1, 6, 1, 6, 4, 2, 4]]
    annotations = [{"image_id": 0, "category_id": 1, "segmentation": square}]
    images = [{"id": 0, "height": 7, "width": 9}]
    expected = np.zeros((1, 7, 9), np.bool_)
    expected[0, 1:4, 2:6] = True
    path = save(tmp_path / "m.json", {"images": images, "annotations": annotations})
    assert np.array_equal(read_masks(path), expected)
    path = save(tmp_path / "n.json", annotations)
    assert np.array_equal(read_masks(path, frame_size=(7, 9)), expected)
    with pytest.raises(InputError, match=r"n\.json has a broken mask in frame 0 \(polygons without the size"):
        read_masks(path)
    for far in ("NaN", "1e30", "-Infinity"):
        path.write_text(json.dumps(annotations).replace("[2, 1,", f"[{far}, 1,"))
        with pytest.raises(InputError, match=r"broken mask in frame 0 \(a polygon runs far outside"):
            read_masks(path, frame_size=(7, 9))


@pytest.mark.parametrize("height", [-5, 0, 1 << 40, 10**30])
def test_polygons_in_images_of_no_size_are_refused(tmp_path: Path, height: int) -> None:
    annotations = [{"image_id": 0, "category_id": 1, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}]
    document = {"images": [{"id": 0, "height": height, "width": 9}], "annotations": annotations}
    with pytest.raises(InputError, match=rf"in frame 0 \(polygons in images 9 wide and {height} high\)"):
        read_masks(save(tmp_path / "m.json", document))


def test_a_polygon_of_numbers_beyond_any_float_is_refused(tmp_path: Path) -> None:
    square = [[10**400, 1, 6, 1, 6, 4]]
    with pytest.raises(InputError, match="broken mask in frame 0"):
        read_masks(save(tmp_path / "m.json", [{"image_id": 0, "segmentation": square}]), frame_size=(7, 9))


@pytest.mark.parametrize("value", [[4], {"a": 4}])
def test_ids_that_are_neither_numbers_nor_names_are_refused(tmp_path: Path, value: Any) -> None:
    rle = encode_rle(random_masks()[0])
    good = {"image_id": 4, "track_id": 1, "segmentation": rle}
    images = [{"id": 4, "height": 7, "width": 9}]
    for document, field in (
        ([{**good, "image_id": value}], "image_id"),
        ([{**good, "track_id": value}], "track_id"),
        ([{"id": value, "segmentations": [rle]}], "id"),
        ({"object_id": value, "segmentations": [rle]}, "object_id"),
        ({"images": [{"id": value}], "annotations": [good]}, "id of an image"),
    ):
        with pytest.raises(InputError, match=f"as {field}; expected a number or a name"):
            read_masks(save(tmp_path / "m.json", document))
    for odd in ({**images[0], "video_id": value}, {**images[0], "height": value}):
        read_masks(save(tmp_path / "m.json", {"images": [odd], "annotations": [good]}))
    read_masks(save(tmp_path / "m.json", {"images": 5, "annotations": [good]}))


def test_two_tracks_of_one_id_are_refused(tmp_path: Path) -> None:
    tracks = [{"track_id": 3, "segmentations": [encode_rle(mask)]} for mask in random_masks(2)]
    with pytest.raises(InputError, match="two tracks of object 3; expected a track_id that tells them apart"):
        read_masks(save(tmp_path / "m.json", tracks), object_id=3)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[1, 2", '{"a": NaN'])
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=r"m\.json cannot be read as json .*expected one RLE per frame"):
        read_masks(tmp_path / "m.json")


@pytest.mark.parametrize(
    "document",
    [[], {}, 3, None, "x", [1], [[1, 2]], [{"image_id": 1}], {"a": 1}, {"annotations": []}, {"frames": [1]}],
)
def test_json_of_another_layout_is_named(tmp_path: Path, document: Any) -> None:
    with pytest.raises(InputError, match=r"m\.json has none of the supported layouts"):
        read_masks(save(tmp_path / "m.json", document))


@pytest.mark.parametrize("document", [[None, None], {"segmentations": []}, {"masks": [None]}])
def test_json_that_never_shows_the_object_is_named(tmp_path: Path, document: Any) -> None:
    with pytest.raises(InputError, match=r"m\.json shows the object in no frame"):
        read_masks(save(tmp_path / "m.json", document))


def test_masks_of_different_sizes_in_one_json_are_named(tmp_path: Path) -> None:
    rles = [encode_rle(np.ones((4, 6), np.bool_)), None, encode_rle(np.ones((4, 5), np.bool_))]
    with pytest.raises(InputError, match=r"m\.json has a mask 5 wide and 4 high in frame 2, but others are 6 wide"):
        read_masks(save(tmp_path / "m.json", rles))


def test_object_with_a_file_of_one_unnamed_object_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.json", [encode_rle(random_masks()[0])])
    with pytest.raises(InputError, match=r"holds a single object without an id; leave out `object_id`"):
        read_masks(path, object_id=1)
