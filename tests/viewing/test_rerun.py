"""Recordings, read back with rerun's own reader."""

from __future__ import annotations

import io
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader

from amodal.runtime.errors import MissingDependencyError
from amodal.viewing import rerun_view
from amodal.viewing.opening import open_views, require_views
from amodal.viewing.view import Moment, Shown, Views

SIZE = (24, 32)


def moments():
    """Two objects that overlap; the second is there in the first frame only."""
    for t in range(3):
        cup, box = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
        cup[5:15, 4 + t : 14 + t] = True
        box[10:20, 8:20] = True
        frame = np.full((*SIZE, 3), 90 + t, np.uint8)
        objects = [Shown("cup", cup & ~box, cup, frame), Shown("a/b", box, box)][: 2 - min(t, 1)]
        yield Moment(2 * t, t / 4, frame, objects, np.full((6, 8), 1.5 + t, np.float32), {"age (s)": 0.5 * t})


def rows_of(path: Path) -> dict[str, dict[str, list[tuple[Any, Any]]]]:
    """By entity and column: (frame, value) of each row."""
    found: dict[str, dict[str, list[tuple[Any, Any]]]] = defaultdict(lambda: defaultdict(list))
    for chunk in RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        kept = [name for name in batch.schema.names if name == "frame" or ":" in name]
        table = batch.select(kept).to_pydict()
        numbers = table.get("frame", [None] * chunk.num_rows)
        for column, values in table.items():
            found[chunk.entity_path][column] += list(zip(numbers, values, strict=True))
    return found


def labels_of(found, entity):
    column = found[entity]["SegmentationImage:buffer"]
    return {n: np.frombuffer(bytes(v[0]), np.uint16).reshape(SIZE) for n, v in column if v}


def test_a_recording_has_every_frame_mask_and_figure(tmp_path: Path) -> None:
    given = list(moments())
    with open_views(tmp_path, "rerun", True, "a clip") as views:
        for moment in given:
            views.add(moment)
    assert views.names == ["view.rrd", "view.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view.html", "view.rrd"]
    found = rows_of(tmp_path / "view.rrd")
    visible, cups = labels_of(found, "/frame/visible"), labels_of(found, "/frame/whole/cup")
    (boxes,) = labels_of(found, r"/frame/whole/a\/b").items()
    assert boxes[0] == 0
    np.testing.assert_array_equal(boxes[1], 2 * given[0].objects[1].whole)
    figures = dict(found["/figures/age\\ \\(s\\)"]["Scalars:scalars"])
    blobs = dict(found["/frame"]["EncodedImage:blob"])
    for moment in given:
        n = moment.number
        np.testing.assert_array_equal(cups[n], moment.objects[0].whole)
        labels = sum((place + 1) * shown.visible for place, shown in enumerate(moment.objects))
        np.testing.assert_array_equal(visible[n], labels)
        assert figures[n] == [moment.figures["age (s)"]]
        with Image.open(io.BytesIO(bytes(blobs[n][0]))) as picture:
            assert np.abs(np.asarray(picture, int) - moment.frame).max() < 3
    depth = {n: np.frombuffer(bytes(v[0]), np.float32) for n, v in found["/depth"]["DepthImage:buffer"]}
    assert all((depth[m.number] == m.depth.ravel()).all() for m in given)
    classes = [v for _, v in found["/"]["AnnotationContext:context"] if v]
    assert {"cup", "a/b"} <= {one["class_description"]["info"]["label"] for one in classes[-1][0]}


def test_what_is_written_until_an_error_can_be_read(tmp_path: Path) -> None:
    def fail() -> None:
        with open_views(tmp_path, "rerun", True, "a clip") as views:
            views.add(next(moments()))
            raise ValueError("the camera")

    with pytest.raises(ValueError, match="the camera"):
        fail()
    assert list(labels_of(rows_of(tmp_path / "view.rrd"), "/frame/visible")) == [0]
    assert (tmp_path / "view.html").exists()


def test_without_rerun_the_extra_is_named_and_html_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "amodal\[view\]"'):
        require_views("rerun")
    with open_views(tmp_path, None, True, "a clip") as views:
        views.add(next(moments()))
    assert views.names == ["view.html"]


def test_a_viewer_that_is_started_sends_no_analytics(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Recording:
        def __init__(self, name: str) -> None: ...
        def send_recording_name(self, name: str) -> None: ...
        def spawn(self, **_: object) -> None:
            seen.append(os.environ.get("CI"))

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(rerun_view.require_rerun(), "RecordingStream", Recording)
    rerun_view.RerunView(None, "a clip")
    assert seen == ["1"]
    assert "CI" not in os.environ


def test_all_views_are_closed_even_if_one_cannot_be() -> None:
    closed = []

    class One:
        name = "one"

        def add(self, moment: Moment) -> None: ...

        def close(self) -> list[str]:
            closed.append(self)
            if len(closed) == 1:
                raise OSError("full")
            return []

    with pytest.raises(OSError, match="full"):
        Views([One(), One()]).close()
    assert len(closed) == 2
