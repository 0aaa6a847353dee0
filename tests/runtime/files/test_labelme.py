from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.tracks import read_tracks

from .layouts import save


def write(folder: Path, *frames: list[dict[str, Any]], **fields: Any) -> Path:
    for i, shapes in enumerate(frames):
        document = {"shapes": shapes, "imagePath": f"{i:05d}.jpg", "imageHeight": 7, "imageWidth": 9, **fields}
        save(folder / f"{i:05d}.json", document)
    return folder


def shape(label: str, points: Any, kind: str | None = "polygon", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def box(top: int, bottom: int, left: int, right: int) -> Any:
    mask = np.zeros((7, 9), np.bool_)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4]]


@pytest.mark.parametrize(
    ("kind", "points"),
    [("polygon", SQUARE), (None, SQUARE), ("rectangle", [[6, 1], [2, 4]]), ("oriented_rectangle", SQUARE)],
)
def test_shapes_cover_their_corners_as_labelme_draws_them(tmp_path: Path, kind: str | None, points: Any) -> None:
    track = read_tracks(write(tmp_path, [shape("car", points, kind)], [])).object("car")
    assert track.names == ["00000.jpg", "00001.jpg"]
    assert track.seen() == [0]
    assert np.array_equal(track.read(), [box(1, 4, 2, 6), np.zeros((7, 9), np.bool_)])


def test_a_circle_is_given_by_its_centre_and_a_point_on_it(tmp_path: Path) -> None:
    y, x = np.mgrid[:7, :9]
    mask = read_tracks(write(tmp_path, [shape("ball", [[4, 3], [4, 5]], "circle")], [])).object().read()[0]
    distance = np.hypot(x - 4, y - 3)
    assert mask[distance <= 1.5].all()
    assert not mask[distance >= 3].any()


def test_the_id_is_the_group_or_the_label_and_parts_of_a_group_are_joined(tmp_path: Path) -> None:
    left, right = [[0, 1], [1, 1], [1, 4], [0, 4]], [[7, 1], [8, 1], [8, 4], [7, 4]]
    frame = [shape("car", left, group=4), shape("car", right, group=4), shape("dog", SQUARE)]
    tracks = read_tracks(write(tmp_path, frame, frame))
    assert tracks.ids == [4, "dog"]
    assert np.array_equal(tracks.object("4").read()[0], box(1, 4, 0, 1) | box(1, 4, 7, 8))


def test_one_group_of_two_labels_is_two_objects(tmp_path: Path) -> None:
    frame = [shape("car", SQUARE, group=1), shape("dog", SQUARE, group=1)]
    assert read_tracks(write(tmp_path, frame, frame)).ids == ["car:1", "dog:1"]


def test_two_shapes_of_a_label_without_a_group_are_refused_when_they_are_asked_for(tmp_path: Path) -> None:
    tracks = read_tracks(write(tmp_path, [shape("car", SQUARE), shape("car", SQUARE), shape("dog", SQUARE)], []))
    with pytest.raises(
        InputError, match=r"has 2 shapes labelled car in frame 00000\.jpg; give the parts of one object"
    ):
        tracks.object("car")
    assert tracks.object("dog").seen() == [0]


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_what_covers_no_area_is_named(tmp_path: Path, kind: str) -> None:
    tracks = read_tracks(write(tmp_path, [shape("car", SQUARE, kind)], []))
    with pytest.raises(
        InputError, match=rf"marks object car by a {kind} in frame 00000\.jpg; expected polygons or masks"
    ):
        tracks.object("car")


def test_files_whose_pictures_have_one_name_are_named_by_themselves(tmp_path: Path) -> None:
    tracks = read_tracks(write(tmp_path, [shape("car", SQUARE)], [], imagePath="frame.jpg"))
    assert tracks.object().names == ["00000", "00001"]
    assert "imagePath does not tell them apart" in tracks.notes[0]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (shape("car", [[1, 1], [2, 2]]), "a polygon of 2 points"),
        (shape("car", [[1, 1], [2, float("nan")], [3, 3]]), "far outside"),
        (shape("car", [[1, 1], [2, 1e30], [3, 3]]), "far outside"),
        (shape("car", [[1, 1], ["2", 1], [3, 3]]), "is not a coordinate"),
        (shape("car", 7), "not pairs"),
        ({**shape("car", [[1, 1], [2, 2]], "mask"), "mask": "!"}, "no PNG in base64"),
        ({**shape("car", [[1, 1], [2, 2]], "mask"), "mask": "AAAA"}, "no PNG in base64"),
        (shape("car", [[1, 1], [2, 2]], "mask"), "no PNG in base64"),
    ],
)
def test_broken_shapes_are_named(tmp_path: Path, broken: dict[str, Any], sentence: str) -> None:
    track = read_tracks(write(tmp_path, [shape("car", SQUARE)], [broken])).object()
    with pytest.raises(
        InputError, match=rf"broken mask in frame 00001\.jpg \(.*{sentence}.*; expected a shape of LabelMe"
    ):
        track.read()
