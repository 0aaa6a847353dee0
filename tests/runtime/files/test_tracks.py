from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.rle import encode_rle
from amodal.runtime.files.tracks import holds_tracks, read_tracks

from ...places import SHARED
from . import layouts
from .layouts import LAYOUTS, example, save


def written(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    masks = example()
    if LAYOUTS[name].corner:
        for clip in masks.values():
            clip[:, 0], clip[:, :, :2] = False, False
    return LAYOUTS[name].write(folder, masks), masks


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    path, masks = written(name, tmp_path)
    assert holds_tracks(path)
    tracks = read_tracks(path)
    assert {str(listed) for listed in tracks.ids} == set(masks)
    for listed in tracks.ids:
        for typed in (listed, str(listed)):
            track = tracks.object(typed)
            assert track.names == LAYOUTS[name].names
            assert track.numbered == LAYOUTS[name].numbered
            assert track.count == layouts.FRAMES
            assert track.size() == (layouts.HEIGHT, layouts.WIDTH)
            expected = masks[str(listed)]
            assert track.seen() == np.flatnonzero(expected.any((1, 2))).tolist()
            assert np.array_equal(track.read(), expected)
            part = list(track.masks([3, None, 1, 3]))
            assert np.array_equal(part, [expected[3], np.zeros_like(expected[0]), expected[1], expected[3]])
    assert np.array_equal(read_masks(path, "12"), masks["12"])
    with pytest.raises(InputError, match=re.escape(f"{path} holds 2 objects (3, 12); pick one with `object_id`")):
        tracks.object()
    with pytest.raises(InputError, match=r"holds no object car_1; `object_id` can be 3, 12"):
        tracks.object("car_1")


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_mask_is_decoded_before_it_is_asked_for(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = written(name, tmp_path)

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded")

    for module, function in (("segments", "decode_rle"), ("cvat", "fill_runs"), ("label_studio", "unpack_brush")):
        monkeypatch.setattr(f"amodal.runtime.files.tracks.{module}.{function}", refuse)
    track = read_tracks(path).object("3")
    if name not in ("LabelMe", "Label Studio", "CVAT video", "CVAT images"):
        assert track.seen() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ids", [("car_1", "car_2"), (0, 1), ("1", 2), (1.0, "x")])
def test_ids_of_any_kind_can_be_typed_back(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    a, b = example().values()
    items = [
        {"image_id": i, "track_id": name, "segmentation": encode_rle(mask)}
        for name, clip in zip(ids, (a, b), strict=True)
        for i, mask in enumerate(clip)
    ]
    tracks = read_tracks(save(tmp_path / "m.json", items))
    for listed, clip in zip(tracks.ids, (a, b), strict=True):
        assert np.array_equal(tracks.object(str(listed)).read(), clip)


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), [1], {"a": 1}])
def test_ids_that_nobody_can_type_are_refused(tmp_path: Path, value: Any) -> None:
    item = {"image_id": 0, "track_id": value, "segmentation": encode_rle(example()["3"][0])}
    with pytest.raises(InputError, match=r"as track_id; expected a number or a name"):
        read_tracks(save(tmp_path / "m.json", [item]))


def test_annotations_without_a_track_are_not_mixed_with_tracks(tmp_path: Path) -> None:
    a, b = example().values()
    items = [{"image_id": i, "category_id": 1, "track_id": 1, "segmentation": encode_rle(a[i])} for i in range(5)]
    items += [{"image_id": i, "category_id": 1, "segmentation": encode_rle(b[i])} for i in range(5)]
    tracks = read_tracks(save(tmp_path / "m.json", items))
    assert np.array_equal(tracks.object().read(), a)
    assert tracks.notes == [f"{tmp_path / 'm.json'} has 5 annotations without a track_id, which are left out."]


def test_an_ambiguous_object_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    mask = encode_rle(example()["3"][0])
    items = [{"image_id": i, "category_id": c, "score": 0.9, "segmentation": mask} for i in (7, 8) for c in (1, 1, 2)]
    tracks = read_tracks(save(tmp_path / "coco_instances_results.json", items))
    with pytest.raises(InputError, match=r"two annotations of object 1 for image 7; expected a track_id that tells"):
        tracks.object(1)
    assert tracks.object(2).seen() == [0, 1]


def test_data_sets_of_amodal_masks_are_not_mistaken_for_visible_ones(tmp_path: Path) -> None:
    visible, whole = example().values()
    items = [
        {"image_id": 0, "track_id": 4, "segmentation": encode_rle(whole[0]), "visible_mask": encode_rle(visible[0])}
    ]
    path = save(tmp_path / "m.json", items)
    assert np.array_equal(read_tracks(path).object().read(), visible[:1])
    assert np.array_equal(read_tracks(path, key="amodal").object().read(), whole[:1])
    assert "visible_mask is read as the modal mask" in read_tracks(path).notes[0]


def test_objects_of_several_videos_are_told_apart_by_the_name_of_the_frames(tmp_path: Path) -> None:
    masks = example()
    one = json.loads(layouts.burst(tmp_path, masks).read_text())["sequences"][0]
    other = {**one, "seq_name": "run", "segmentations": one["segmentations"][::-1]}
    path = save(tmp_path / "burst.json", {"sequences": [one, other]})
    assert np.array_equal(read_tracks(path, sequence="run").object(3).read(), masks["3"][::-1])
    assert np.array_equal(read_tracks(path, sequence="walk").object(3).read(), masks["3"])
    for sequence in (None, "frames"):
        tracks = read_tracks(path, sequence=sequence)
        assert tracks.videos == ["walk", "run"]
        with pytest.raises(InputError, match=r"shows object 3 in 2 videos \(run, walk\); name the folder of frames"):
            tracks.object(3)


def test_youtube_vis_videos_keep_their_own_frames(tmp_path: Path) -> None:
    clip = [encode_rle(mask) for mask in example()["3"]]
    videos = [{"id": 1, "file_names": ["a/0.jpg", "a/1.jpg"]}, {"id": 2, "file_names": ["b/0.jpg"]}]
    items = [{"id": 1, "video_id": 1, "segmentations": clip[:2]}, {"id": 2, "video_id": 2, "segmentations": clip[:1]}]
    tracks = read_tracks(save(tmp_path / "m.json", {"videos": videos, "annotations": items}))
    assert tracks.object(1).names == ["a/0.jpg", "a/1.jpg"]
    assert tracks.object(2).names == ["b/0.jpg"]
    assert tracks.videos == ["a", "b"]
    items[0]["segmentations"] = clip[:1]
    tracks = read_tracks(save(tmp_path / "m.json", {"videos": videos, "annotations": items}))
    with pytest.raises(InputError, match=r"has 1 masks of object 1 for a video of 2 files; expected one or null per"):
        tracks.object(1)


def test_annotations_of_unknown_images_are_refused(tmp_path: Path) -> None:
    item = {"image_id": 9, "category_id": 1, "segmentation": encode_rle(example()["3"][0])}
    with pytest.raises(InputError, match=r"annotates image 9, which is not among its images"):
        read_tracks(save(tmp_path / "m.json", {"images": [{"id": 1}], "annotations": [item]}))


def test_frames_of_one_name_are_refused(tmp_path: Path) -> None:
    item = {"image_id": 1, "category_id": 1, "segmentation": encode_rle(example()["3"][0])}
    pictures = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    with pytest.raises(InputError, match=r"lists two images named a\.jpg"):
        read_tracks(save(tmp_path / "m.json", {"images": pictures, "annotations": [item]}))


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (20.0, ["0", "4", "8", "12", "16"]),
        (17, ["0", "4", "8", "12", "16"]),
        (5, ["0", "1", "2", "3", "4"]),
        (21, None),
        (None, None),
    ],
)
def test_masklets_have_the_numbers_of_the_annotated_frames(tmp_path: Path, count: Any, names: Any) -> None:
    document = json.loads(layouts.sav(tmp_path, example()).read_text())
    document["video_frame_count"] = count
    tracks = read_tracks(save(tmp_path / "m.json", document))
    assert tracks.object(3).names == names
    assert len(tracks.notes) == 1
    assert "5 masks" in tracks.notes[0] or "each of the 5 frames" in tracks.notes[0]


def test_frames_and_objects_that_could_be_exchanged_are_refused_with_both_readings(tmp_path: Path) -> None:
    rle = encode_rle(example()["3"][0])
    document = {"1": {str(i): rle for i in range(9)}, "2": {str(i): rle for i in range(9)}}
    with pytest.raises(InputError, match=r"read as 2 frames with 9 objects or as 2 objects in 9 frames"):
        read_tracks(save(tmp_path / "m.json", document))


def test_counts_written_as_the_text_of_bytes_are_read(tmp_path: Path) -> None:
    masks = np.random.default_rng(3).random((6, 60, 70)) > 0.5
    masks[0, :50, 0] = np.arange(50) >= 44  # 44 is written with a backslash
    rles = [encode_rle(mask) for mask in masks]
    quoted = [{**rle, "counts": str(rle["counts"].encode())} for rle in rles]
    assert any("\\\\" in rle["counts"] for rle in quoted)
    assert np.array_equal(read_tracks(save(tmp_path / "m.json", quoted)).object().read(), masks)


def test_sizes_as_width_and_height_are_refused(tmp_path: Path) -> None:
    document = json.loads(layouts.coco(tmp_path, example()).read_text())
    for annotation in document["annotations"]:
        annotation["segmentation"]["size"].reverse()
    with pytest.raises(
        InputError, match=r"masks 7 wide and 9 high for images 9 wide and 7 high; expected the size of an"
    ):
        read_tracks(save(tmp_path / "m.json", document)).object(3).seen()


@pytest.mark.parametrize("height", [-7, 0, 10**30])
def test_empty_masks_of_an_impossible_size_are_refused(tmp_path: Path, height: int) -> None:
    document = json.loads(layouts.coco(tmp_path, example()).read_text())
    for image in document["images"]:
        image["height"] = height
    for annotation in document["annotations"]:
        annotation["segmentation"] = [[2, 1, 6, 1, 6, 4]]
    with pytest.raises(InputError, match=r"has empty masks in images 9 wide and -?[0-9]+ high; expected their height"):
        list(read_tracks(save(tmp_path / "m.json", document)).object(12).masks([None]))
    rle = {"0": encode_rle(example()["3"][0]), "1": None}
    assert not read_tracks(save(tmp_path / "n.json", rle)).object().read([1]).any()


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    rle = json.dumps(encode_rle(example()["3"][0]))
    (tmp_path / "m.json").write_text(f'{{"0.png": {rle}, "0.png": {rle}}}')
    with pytest.raises(InputError, match=r"cannot be read as json \('0\.png' occurs twice in one object\)"):
        read_tracks(tmp_path / "m.json")


def test_polygons_are_drawn_in_images_of_the_size_that_the_file_states(tmp_path: Path) -> None:
    square = [[2, 1, 6, 1, 6, 4, 2, 4]]
    pictures = [{"id": i, "file_name": f"{i}.jpg", "height": 7 + 3 * (i == 2), "width": 9} for i in range(3)]
    items = [{"image_id": i, "category_id": 1, "segmentation": square} for i in range(3)]
    track = read_tracks(save(tmp_path / "m.json", {"images": pictures, "annotations": items})).object()
    assert track.size((100, 100)) == (7, 9)
    assert np.array_equal(track.read([0, 1], (100, 100))[:, 1:4, 2:6], np.ones((2, 3, 4), np.bool_))
    with pytest.raises(InputError, match=r"mask 9 wide and 10 high in frame 2\.jpg, but others are 9 wide and 7 high"):
        track.read()


def test_an_rle_of_the_demo_in_rows_is_refused(tmp_path: Path) -> None:
    document = [
        {"frameIndex": 0, "rleMaskList": [{"objectId": 0, "rleMask": {"size": [2, 2], "counts": "4", "order": "C"}}]}
    ]
    with pytest.raises(InputError, match=r"RLE of order C in frame 0; expected F \(columns\)"):
        read_tracks(save(tmp_path / "m.json", document))


def test_a_broken_mask_is_named_by_its_frame_and_only_in_the_object_that_is_read(tmp_path: Path) -> None:
    document = json.loads(layouts.coco(tmp_path, example()).read_text())
    document["annotations"][0]["segmentation"]["counts"][0] += 1
    tracks = read_tracks(save(tmp_path / "m.json", document))
    with pytest.raises(InputError, match=r"broken mask in frame clip/00001\.jpg \(the runs cover 64 pixels of 63\)"):
        tracks.object(3).seen()
    assert tracks.object(12).seen() == [0, 3, 4]


def test_mots_names_ignored_regions_and_counts_frames_without_objects(tmp_path: Path) -> None:
    counts = encode_rle(example()["3"][0])["counts"]
    rows = [f"4 2001 2 7 9 {counts}", f"9 2001 2 7 9 {counts}", f"5 10000 10 7 9 {counts}"]
    (tmp_path / "0002.txt").write_text("\n".join(rows))
    tracks = read_tracks(tmp_path / "0002.txt")
    assert tracks.ids == [2001]
    assert tracks.object().names == ["4", "5", "6", "7", "8", "9"]
    assert tracks.object().seen() == [0, 5]
    assert "1 regions to be ignored" in tracks.notes[0]


FOREIGN: dict[str, tuple[Any, str]] = {
    "grounded": ({"mask_name": "mask_0.npy", "mask_height": 7, "labels": {"1": {"instance_id": 1}}}, "mask_data"),
    "via": ({"a.jpg123": {"filename": "a.jpg", "regions": []}}, "VIA"),
    "via project": ({"_via_settings": {}, "_via_img_metadata": {}}, "VIA"),
    "supervisely": ({"size": {"height": 1}, "objects": [{"classTitle": "car", "bitmap": {}}]}, "Supervisely"),
    "supervisely video": ({"frames": [{"index": 0, "figures": []}], "objects": []}, "Supervisely"),
    "cityscapes": ({"imgHeight": 7, "imgWidth": 9, "objects": [{"label": "car", "polygon": []}]}, "Cityscapes"),
    "cocoa": ({"images": [], "annotations": [{"image_id": 1, "regions": []}]}, "COCOA"),
    "sail-vos": ([{"segmentation": [], "visible_mask": [], "image_file_names": []}], "SAIL-VOS"),
    "tao": (
        {"annotations": [{"image_id": 1, "track_id": 2, "bbox": [1, 2, 3, 4], "amodal_bbox": [1, 2, 3, 4]}]},
        "TAO-Amodal",
    ),
    "boxes": ([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "segmentation": []}], "boxes of COCO"),
    "sa-1b": ({"image": {"image_id": 1}, "annotations": [{"segmentation": {}, "predicted_iou": 1}]}, "SA-1B"),
    "darwin": ({"version": "2.0", "item": {}, "annotations": []}, "Darwin"),
    "labelbox": ([{"data_row": {}, "projects": {}}], "Labelbox"),
    "label studio min": ([{"image": "a.jpg", "tag": [{"format": "rle", "rle": [], "brushlabels": ["a"]}]}], "JSON-MIN"),
    "panoptic": ({"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}, "panoptic"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_format_that_is_recognised_and_not_read_is_named(tmp_path: Path, name: str) -> None:
    document, mark = FOREIGN[name]
    with pytest.raises(InputError, match=rf"m\.json (is|holds) .*{mark}"):
        read_tracks(save(tmp_path / "m.json", document))


@pytest.mark.parametrize(
    ("file", "text", "mark"),
    [
        ("a.xml", "<annotation><object><bndbox/></object></annotation>", "Pascal VOC"),
        ("a.txt", "0 0.5 0.5 0.1 0.1 0.2 0.2\n", "YOLO"),
        ("a.txt", "1,3,794.27,247.59,71.245,174.88,-1,-1,-1,-1\n", "MOTChallenge"),
    ],
)
def test_other_files_that_are_recognised_and_not_read_are_named(
    tmp_path: Path, file: str, text: str, mark: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=mark):
        read_tracks(tmp_path / file)


def test_a_folder_of_one_file_is_that_file_and_of_several_kinds_is_refused(tmp_path: Path) -> None:
    layouts.coco(tmp_path / "a", example())
    assert read_tracks(tmp_path / "a").layout == "COCO annotations"
    layouts.demo(tmp_path / "a", example())
    with pytest.raises(InputError, match=r"holds 2 \.json files that are not all masks of one frame in one layout"):
        read_tracks(tmp_path / "a")


def test_pictures_beside_json_are_masks_unless_it_is_labelmes(tmp_path: Path) -> None:
    masks = np.zeros((2, 7, 9), np.bool_)
    masks[:, 2:4, 3:6] = True
    for i, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / f"{i}.png")
    save(tmp_path / "meta.json", {"model": "sam2"})
    save(tmp_path / "0.json", {"labels": {}})
    assert not holds_tracks(tmp_path)
    assert np.array_equal(read_masks(tmp_path), masks)
    save(tmp_path / "0.json", {"shapes": [], "imagePath": "0.png"})
    assert holds_tracks(tmp_path)


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the cases beside the repository")
@pytest.mark.parametrize(
    ("case", "file", "object_id"),
    [
        ("15", "masks.json", "car_1"),
        ("16", "masks.json", "0"),
        ("19", "sav.json", None),
        ("19", "demo.json", "0"),
        ("19", "segments.json", None),
        ("19", "labelme", "a"),
    ],
)
def test_the_cases_people_brought_are_read(tmp_path: Path, case: str, file: str, object_id: Any) -> None:
    source = (SHARED / "cases" / case / "make.py").read_text()
    (tmp_path / case).mkdir()
    (tmp_path / "common.py").write_text((SHARED / "cases" / "common.py").read_text())
    script = tmp_path / case / "make.py"
    script.write_text(source)
    subprocess.run([sys.executable, str(script)], check=True)
    masks = read_masks(tmp_path / case / file, object_id)
    if file == "labelme":
        assert masks.shape == (3, 45, 80)
        assert masks[:, 11, 15].all()
    else:
        y, x = np.mgrid[:45, :80]
        disc = [(x - 80 * (0.2 + 0.3 * i)) ** 2 + (y - 22.5) ** 2 < 64 for i in range(3)]
        assert np.array_equal(masks, disc)
