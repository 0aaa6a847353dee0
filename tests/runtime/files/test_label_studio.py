from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.tracks import read_tracks
from amodal.runtime.files.tracks.label_studio import unpack_brush

from .layouts import brush, save


def region(kind: str, name: str = "car", key: str = "r0", **value: Any) -> dict[str, Any]:
    sizes = {"original_width": 9, "original_height": 7, "image_rotation": 0}
    return {"id": key, "type": kind, **sizes, "value": {kind: [name], **value}}


def task(*regions: dict[str, Any], image: str = "/data/local-files/?d=clip/00001.jpg", **fields: Any) -> dict[str, Any]:
    return {"id": 5, "data": {"image": image}, "annotations": [{"result": list(regions)}], **fields}


SQUARE = [[200 / 9, 100 / 7], [600 / 9, 100 / 7], [600 / 9, 400 / 7], [200 / 9, 400 / 7]]


def test_polygons_are_in_percent_of_the_picture(tmp_path: Path) -> None:
    track = read_tracks(save(tmp_path / "m.json", [task(region("polygonlabels", points=SQUARE))])).object("car")
    expected = np.zeros((1, 7, 9), np.bool_)
    expected[0, 1:4, 2:6] = True
    assert track.names == ["00001.jpg"]
    assert np.array_equal(track.read(), expected)


def test_the_brush_and_labels_tags_are_one_region(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    drawn = {"format": "rle", "rle": brush(mask)}
    regions = [
        {**region("brush"), "value": drawn},
        {**region("labels"), "value": {**drawn, "labels": ["dog"]}},
    ]
    tracks = read_tracks(save(tmp_path / "m.json", [task(*regions)]))
    assert tracks.ids == ["dog"]
    assert np.array_equal(tracks.object().read(), [mask])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 255, 256, 257, 70_000])
def test_runs_of_any_length_are_unpacked(count: int) -> None:
    mask = np.concatenate([np.ones(count, np.bool_), np.zeros(count, np.bool_), np.ones(3, np.bool_)])
    values = unpack_brush(brush(mask), 4 * len(mask))
    assert np.array_equal(values.reshape(-1, 4)[:, 3] > 0, mask)


@pytest.mark.parametrize("kind", ["rectanglelabels", "ellipselabels", "videorectangle"])
def test_boxes_are_named(tmp_path: Path, kind: str) -> None:
    tracks = read_tracks(save(tmp_path / "m.json", [task(region(kind, x=1, y=2, width=3, height=4))]))
    with pytest.raises(InputError, match=r"draws object car as a rectangle or an ellipse; expected brush or polygon"):
        tracks.object("car")


def test_two_regions_of_a_label_are_ambiguous(tmp_path: Path) -> None:
    regions = [region("polygonlabels", key=key, points=SQUARE) for key in ("a", "b")]
    tracks = read_tracks(save(tmp_path / "m.json", [task(*regions)]))
    with pytest.raises(InputError, match=r"two annotations of object car for frame 00001\.jpg; give different objects"):
        tracks.object("car")


def test_what_was_not_annotated_is_missing_and_what_holds_nothing_is_empty(tmp_path: Path) -> None:
    tasks = [
        task(region("polygonlabels", points=SQUARE)),
        task(image="s3://bucket/00002.jpg"),
        task(image="00003.jpg", annotations=[]),
        task(image="00004.jpg", annotations=[{"was_cancelled": True, "result": []}]),
    ]
    tracks = read_tracks(save(tmp_path / "m.json", tasks))
    assert tracks.object().names == ["00001.jpg", "00002.jpg"]
    assert tracks.object().seen() == [0]
    assert "2 tasks without an annotation" in tracks.notes[0]


def test_several_annotations_of_a_task_are_refused(tmp_path: Path) -> None:
    twice = task(annotations=[{"result": []}, {"result": []}])
    with pytest.raises(InputError, match=r"2 annotations of 00001\.jpg; expected one"):
        read_tracks(save(tmp_path / "m.json", [twice]))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"rle": [0, 0]}, "truncated"),
        ({"rle": [0, 0, 0, 1] + [0] * 40}, "not of the size"),
        ({"rle": [300]}, "list of bytes"),
        ({"rle": "text"}, "list of bytes"),
        ({"points": [[1]]}, "not pairs"),
        ({"points": [[1, 1], [2, 2]]}, "list of polygons"),
        ({"points": [["a", 1], [2, 2], [3, 3]]}, "unsupported operand"),
    ],
)
def test_broken_regions_are_named(tmp_path: Path, value: dict[str, Any], sentence: str) -> None:
    track = read_tracks(save(tmp_path / "m.json", [task(region("brushlabels", **value))])).object()
    with pytest.raises(InputError, match=rf"broken mask in frame 00001\.jpg \(.*{sentence}"):
        track.read()


def test_pictures_that_were_rotated_while_drawing_are_refused(tmp_path: Path) -> None:
    turned = {**region("polygonlabels", points=SQUARE), "image_rotation": 90}
    with pytest.raises(InputError, match="rotated picture"):
        read_tracks(save(tmp_path / "m.json", [task(turned)])).object().read()
