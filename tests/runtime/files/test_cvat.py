from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.tracks import read_tracks

SQUARE = "2.00,1.00;6.00,1.00;6.00,4.00;2.00,4.00"


def write(folder: Path, tracks: str, stop: int | None = 9, step: int = 1, start: int = 0) -> Path:
    meta = f"<start_frame>{start}</start_frame>" + ("" if stop is None else f"<stop_frame>{stop}</stop_frame>")
    meta += f"<frame_filter>step={step}</frame_filter>" if step > 1 else "<frame_filter></frame_filter>"
    meta += "<original_size><width>9</width><height>7</height></original_size>"
    (folder / "annotations.xml").write_text(f"<annotations><meta><task>{meta}</task></meta>{tracks}</annotations>")
    return folder / "annotations.xml"


def track(frames: Any, hidden: Any = (), tag: str = "polygon", name: str = "0") -> str:
    shapes = "".join(
        f'<{tag} frame="{frame}" keyframe="1" outside="{int(frame in hidden)}" points="{SQUARE}" z_order="0"/>'
        for frame in sorted({*frames, *hidden})
    )
    return f'<track id="{name}" label="car">{shapes}</track>'


def test_polygons_of_a_track_are_read_frame_by_frame(tmp_path: Path) -> None:
    found = read_tracks(write(tmp_path, track(range(2, 6), [6]))).object("0")
    assert found.names == [str(i) for i in range(10)]
    assert found.numbered
    assert found.seen() == [2, 3, 4, 5]
    expected = np.zeros((7, 9), np.bool_)
    expected[1:4, 2:6] = True
    assert np.array_equal(found.read([2, 6]), [expected, np.zeros_like(expected)])


def test_frames_between_keyframes_are_missing_rather_than_empty(tmp_path: Path) -> None:
    tracks = read_tracks(write(tmp_path, track([0, 3, 4], [5, 8])))
    assert tracks.object().names == ["0", "3", "4", "5", "6", "7", "8", "9"]
    assert tracks.object().seen() == [0, 1, 2]
    assert "no shape of object 0 in frame 1, 2, where it is not outside either" in tracks.object().notes[0]


def test_a_track_that_ends_without_being_outside_misses_the_rest(tmp_path: Path) -> None:
    assert read_tracks(write(tmp_path, track([0, 1, 2]))).object().names == ["0", "1", "2"]
    assert read_tracks(write(tmp_path, track([0, 1, 2]), stop=None)).object().names == ["0", "1", "2"]


def test_frame_numbers_are_those_of_the_video_where_a_task_takes_every_nth(tmp_path: Path) -> None:
    tracks = read_tracks(write(tmp_path, track([10, 15], [20]), start=10, stop=25, step=5))
    assert tracks.object().names == ["10", "15", "20", "25"]
    assert not tracks.object().notes
    with pytest.raises(InputError, match=r"shape in frame 12, which is none of its task \(10 to 25 by 5\)"):
        read_tracks(write(tmp_path, track([10, 12]), start=10, stop=25, step=5))


def test_a_shape_that_the_exporter_closes_after_the_last_frame_adds_none(tmp_path: Path) -> None:
    assert read_tracks(write(tmp_path, track([9], [10]))).object().count == 10


@pytest.mark.parametrize("tag", ["box", "polyline", "ellipse", "points", "cuboid"])
def test_boxes_are_named_and_other_tracks_are_read(tmp_path: Path, tag: str) -> None:
    tracks = read_tracks(write(tmp_path, track([0], [1], tag) + track([0], [1], name="1")))
    with pytest.raises(InputError, match=rf"draws object 0 as a {tag}; expected polygons or masks"):
        tracks.object(0)
    assert tracks.object(1).seen() == [0]


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE lolz [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotations><track id="&b;"/></annotations>'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.xml").write_bytes(bomb.encode(encoding))
        with pytest.raises(InputError, match=r"a\.xml cannot be read as XML \(it declares a document type\)"):
            read_tracks(tmp_path / "a.xml")


@pytest.mark.parametrize("text", ["", "<a>", "<annotations>", "\x00", "plain"])
def test_damaged_xml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=r"a\.xml cannot be read as XML"):
        read_tracks(tmp_path / "a.xml")


def test_other_xml_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<svg/>")
    with pytest.raises(InputError, match=r"a\.xml has none of the supported layouts"):
        read_tracks(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [("-1", "in frame -1, which is no number"), ("x", "which is no number"), ("99999999", "expected at most 1000000")],
)
def test_impossible_frame_numbers_are_refused(tmp_path: Path, frame: str, sentence: str) -> None:
    shapes = f'<track id="0"><polygon frame="{frame}" points="{SQUARE}"/></track>'
    with pytest.raises(InputError, match=sentence):
        read_tracks(write(tmp_path, shapes, stop=None))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ('<mask frame="0" rle="3, 4" left="0" top="0" width="3" height="3"/>', "cover 7 pixels of 9"),
        ('<mask frame="0" rle="3, x" left="0" top="0" width="3" height="3"/>', "counts"),
        ('<mask frame="0" rle="0, 9" left="0" top="0" width="99999" height="3"/>', "its box is not"),
        ('<mask frame="0" rle="0, 9" left="7" top="0" width="3" height="3"/>', "from column 7 to 10"),
        ('<polygon frame="0" points="1,2;3"/>', "an x without a y|list of polygons"),
        ('<polygon frame="0" points="1,2;3,a;4,5"/>', "could not convert"),
        ('<polygon frame="0" points="1,2;3,nan;4,5"/>', "far outside"),
    ],
)
def test_broken_shapes_are_named(tmp_path: Path, shape: str, sentence: str) -> None:
    found = read_tracks(write(tmp_path, f'<track id="0">{shape}</track>', stop=0)).object()
    with pytest.raises(InputError, match=rf"broken mask in frame 0 \(.*({sentence})"):
        found.read()
