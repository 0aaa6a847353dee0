"""Boxes of a detector: which picture each is for, what its numbers mean, and what is refused with which sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from amodal.runtime.errors import InputError
from amodal.runtime.files.detection_images import find_frames, find_pictures, read_image_list, require_listed_size
from amodal.runtime.files.detection_rows import ResultRows
from amodal.runtime.files.detections import Detections, find_boxes, read_detections

NAMES = ("COCO_val2014_000000000042.jpg", "left/000007.png", "photo.jpeg")
SIZE = (60, 80)


def row(image: Any = 42, box: Any = (10, 5, 30, 20), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "bbox": list(box), "category_id": 3, "score": 0.5, **more}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Detections]:
    def from_rows(*rows: Any, document: Any = None) -> Detections:
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps(list(rows) if document is None else document))
        return read_detections(file)

    return from_rows


def test_rows_are_read_in_order_with_corners_from_sides(read: Callable[..., Detections]) -> None:
    found = read(row(42, (10, 5, 30, 20)), row(7, (1.5, 2, 3, 4), score=0.25, category_id=8))
    assert (found.images, found.categories, found.scores.tolist()) == ([42, 7], [3, 8], [0.5, 0.25])
    boxes = find_boxes(found, [SIZE, SIZE])
    np.testing.assert_array_equal(boxes, [[10, 5, 40, 25], [1.5, 2, 4.5, 6]])
    assert found.above(0.3).images == [42]


def test_annotations_without_scores_count_fully_and_it_is_said(read: Callable[..., Detections]) -> None:
    one = row()
    del one["score"]
    found = read(document={"annotations": [one, row()]})
    assert found.scores.tolist() == [1, 0.5]
    assert "1 of 2 detections without a score" in found.notes[0]


def test_a_category_that_the_annotations_do_not_list_is_named(read: Callable[..., Detections]) -> None:
    known = {"categories": [{"id": 3, "name": "car"}]}
    assert read(document={"annotations": [row()], **known}).categories == [3]
    with pytest.raises(InputError, match=r"detection 1 of .* has the category 8, which is none of .*: 3"):
        read(document={"annotations": [row(), row(category_id=8)], **known})


def test_a_score_that_was_rounded_above_1_counts_as_1(read: Callable[..., Detections]) -> None:
    assert read(row(score=1 + 2**-23), row(score=0)).scores.tolist() == [1.0, 0.0]


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected one json file of COCO results") as refused:
        read_detections(tmp_path)
    assert refused.value.field == "detections"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (row(box=(1, 2, float("nan"), 4)), "the bbox [1, 2, NaN, 4]; expected four finite numbers"),
        (row(box=(1, 2, 3)), "the bbox [1, 2, 3]; expected four"),
        (row(box=(1, 2, "3", 4)), "expected four finite numbers"),
        ({"image_id": 1, "category_id": 2, "score": 1}, "has no bbox"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}, "has no category_id"),
        (row(image=None), "has no image_id"),
        (row(score="high"), 'the score "high"; expected a probability from 0 to 1'),
        (row(score=7.25), "the score 7.25; expected a probability from 0 to 1: apply a sigmoid to logits"),
        (row(score=-0.1), "the score -0.1; expected a probability"),
        (row(score=float("inf")), "the score Infinity"),
    ],
)
def test_the_first_broken_detection_is_named(read: Callable[..., Detections], broken: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read(row(), broken)
    assert "detection 1 of" in str(refused.value)
    assert said in str(refused.value)
    assert refused.value.field == "detections"


@pytest.mark.parametrize(
    ("document", "said"),
    [([], "holds no detections"), ({"images": []}, "holds no detections"), ([[1]], "holds no detections")],
)
def test_other_layouts_are_refused_with_the_one_that_is_read(
    read: Callable[..., Detections], document: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read(document=document)


def test_masks_and_what_is_no_json_are_told(read: Callable[..., Detections], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="masks without boxes"):
        read({"image_id": 1, "category_id": 1, "segmentation": {"size": [2, 2], "counts": "04"}})
    (tmp_path / "cut.json").write_text('[{"image_id": 4')
    with pytest.raises(InputError, match=r"cut.json cannot be read as json"):
        read_detections(tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((10, 5, 0, 20), "has no area in its picture, 80 wide and 60 high"),
        ((10, 5, 30, -20), "has no area"),
        ((80, 5, 30, 20), "lies outside of its picture, 80 wide and 60 high"),
        ((-40, 5, 30, 20), "lies outside of its picture"),
        ((0.1, 0.2, 0.5, 0.5), "shares of the picture"),
    ],
)
def test_boxes_that_fit_no_picture_are_named(read: Callable[..., Detections], box: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        find_boxes(read(row(box=box)), [SIZE])
    assert said in str(refused.value)


def test_corners_that_are_taken_for_sides_are_refused_with_both_readings(read: Callable[..., Detections]) -> None:
    found = read(row(box=(50, 40, 75, 55)), row(box=(60, 2, 79, 30)), row(box=(1, 2, 3, 4)))
    with pytest.raises(InputError) as refused:
        find_boxes(found, [SIZE] * 3)
    assert "2 of 3 boxes reach beyond" in str(refused.value)
    assert '`box_format="xywh"`' in str(refused.value)
    assert '`box_format="xyxy"`' in str(refused.value)
    np.testing.assert_array_equal(find_boxes(found, [SIZE] * 3, "xyxy"), found.bbox)
    assert find_boxes(found, [SIZE] * 3, "xywh")[0].tolist() == [50, 40, 125, 95]


def test_a_box_may_reach_beyond_its_picture(read: Callable[..., Detections]) -> None:
    assert find_boxes(read(row(box=(-5, 30, 40, 50)), row()), [SIZE, SIZE])[0].tolist() == [-5, 30, 35, 80]


def test_pictures_are_found_by_number_by_name_and_by_a_list(read: Callable[..., Detections], tmp_path: Path) -> None:
    assert find_pictures(read(row(7), row(42), row("42")), NAMES) == [1, 0, 0]
    assert find_pictures(read(row("photo.jpeg"), row("photo"), row("left/000007.png")), NAMES) == [2, 2, 1]
    assert find_pictures(read(row(9, file_name="photo.jpeg"), row(9, file_name="x/000007.png")), NAMES) == [2, 1]
    listed = tmp_path / "images.json"
    listed.write_text(json.dumps({"images": [{"id": 5, "file_name": "val/photo.jpeg", "height": 9, "width": 8}]}))
    images = read_image_list(listed)
    assert find_pictures(read(row(5)), NAMES, images) == [2]
    require_listed_size(images, 5, "photo.jpeg", (9, 8))
    with pytest.raises(InputError, match="8 wide and 8 high, but"):
        require_listed_size(images, 5, "photo.jpeg", (8, 8))


@pytest.mark.parametrize(
    ("rows", "names", "said"),
    [
        ([row(42), row(8), row(9)], NAMES, "the number 8, which is not in `images`; 1 more image is missing"),
        ([row("cat.jpg")], NAMES, "the picture cat.jpg, which is not in `images`"),
        ([row(7)], ("a_7.png", "b_007.png"), "can be read as a_7.png and as b_007.png"),
        ([row("a")], ("x/a.png", "y/a.jpg"), "can be read as x/a.png and as y/a.jpg"),
        ([row(7, file_name="photo.jpeg"), row(7)], NAMES, "has no file_name, others have"),
    ],
)
def test_pictures_that_are_missing_or_ambiguous_are_named(
    read: Callable[..., Detections], rows: list[Any], names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        find_pictures(read(*rows), names)
    assert said in str(refused.value)


def test_images_and_categories_that_a_list_lacks_are_named(read: Callable[..., Detections], tmp_path: Path) -> None:
    listed = tmp_path / "images.json"
    categories = [{"id": 3, "name": "cup"}, {"id": 4, "name": "hat"}]
    listed.write_text(json.dumps({"images": [{"id": 5, "file_name": "photo.jpeg"}], "categories": categories}))
    images = read_image_list(listed)
    with pytest.raises(InputError, match=r"category 9, which is none of .*: 3, 4"):
        find_pictures(read(row(5), row(5, category_id=9)), NAMES, images)
    with pytest.raises(InputError, match=r"an image that .* does not list"):
        find_pictures(read(row(6)), NAMES, images)
    listed.write_text(json.dumps({"images": [{"id": 5}]}))
    with pytest.raises(InputError, match=r"image 0 of .* has no id or no file_name"):
        read_image_list(listed)


def test_frames_are_counted_as_their_ids_say(read: Callable[..., Detections]) -> None:
    assert find_frames(read(row(0), row(3)), 4) == [0, 3]
    assert find_frames(read(row(1), row(4)), 4) == [0, 3]
    assert find_frames(read(row(1), row(3)), 4, 0) == [1, 3]
    with pytest.raises(InputError, match=r"in two ways.*`first_id=0` or `first_id=1`"):
        find_frames(read(row(1), row(3)), 4)
    with pytest.raises(InputError, match="the frames 0 to 3"):
        find_frames(read(row(0), row(4)), 4)
    with pytest.raises(InputError, match="names no frame"):
        find_frames(read(row("a")), 4)


def test_rows_are_what_pycocotools_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((3, 20, 30)) < 0.4
    rows = ResultRows(tmp_path / "rows.json")
    for index, mask in enumerate(masks):
        rows.add(index, 2, mask, 0.5, detection=index)
    rows.end()
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [one["image_id"] for one in written] == [0, 1, 2]
    for one, mask in zip(written, masks, strict=True):
        assert "bbox" not in one  # with one, pycocotools takes results for boxes
        np.testing.assert_array_equal(coco.decode(one["segmentation"]), mask)
