"""Messages as arrays, compared pixel by pixel with Python's own decoding of their bytes."""

from __future__ import annotations

import array
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.robots.messages.images import fill_labels, masks_of, place_in_planes, read_depth, read_labels
from amodal.runtime.errors import InputError

CODES = {"mono8": "B", "8UC1": "B", "mono16": "H", "16UC1": "H", "32SC1": "i", "32FC1": "f"}


def message(encoding: str, rows: list[list[Any]], big: bool = False, padding: int = 0, **changes: Any) -> Any:
    code = (">" if big else "<") + str(len(rows[0])) + CODES[encoding]
    data = b"".join(struct.pack(code, *row) + b"\xff" * padding for row in rows)
    step = struct.calcsize(code) + padding
    fields = {"height": len(rows), "width": len(rows[0]), "step": step, "encoding": encoding, "is_bigendian": int(big)}
    return SimpleNamespace(**(fields | {"data": array.array("B", data)} | changes))


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16", "16UC1", "32SC1"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_labels_are_the_numbers_that_were_packed(encoding: str, big: bool, padding: int) -> None:
    rows = [[0, 1, 2], [200, 7, 0]]
    assert read_labels(message(encoding, rows, big, padding)).tolist() == rows


def test_depth_is_in_metres_from_both_encodings() -> None:
    assert read_depth(message("16UC1", [[0, 1500]], big=True)).tolist() == [[0.0, 1.5]]
    found = read_depth(message("32FC1", [[0.25, 8.0]], padding=4))
    assert found.tolist() == [[0.25, 8.0]]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "bayer_rggb8"}, "expected mono8, 8UC1, mono16, 16UC1, 32SC1"),
        ({"step": 1}, "step of 1"),
        ({"height": 3}, "of 3x2 pixels"),
        ({"width": 0}, "of 2x0 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_labels(SimpleNamespace(**vars(message("mono8", [[1, 2], [3, 4]])) | changes))


def test_labels_that_are_no_ids_are_refused() -> None:
    with pytest.raises(InputError, match="expected 0 to 65535"):
        read_labels(message("32SC1", [[-1, 5]]))


def test_masks_are_those_of_the_labels_except_the_background() -> None:
    masks = masks_of(np.array([[0, 9], [3, 9]], np.uint16))
    assert {key: mask.tolist() for key, mask in masks.items()} == {
        3: [[False, False], [True, False]],
        9: [[False, True], [False, True]],
    }


def test_planes_keep_every_pixel_of_objects_that_overlap() -> None:
    rng = np.random.default_rng(3)
    masks = {label: rng.random((12, 15)) < 0.1 for label in (5, 2, 900, 41)}
    planes, left_out = place_in_planes(masks, 4)
    assert left_out == []
    for label, mask in masks.items():
        assert np.array_equal((planes == label).any(axis=0), mask)
        assert ((planes == label).any(axis=(1, 2))).sum() == 1


def test_objects_without_a_free_plane_are_named() -> None:
    masks = {label: np.ones((2, 2), bool) for label in (4, 1, 8)}
    planes, left_out = place_in_planes(masks, 2)
    assert left_out == [8]
    assert planes[:, 0, 0].tolist() == [1, 4]


def test_what_is_written_is_read_again() -> None:
    labels = np.array([[0, 65535, 256], [1, 2, 3]], np.uint16)
    written = fill_labels(SimpleNamespace(), "header", labels)
    assert written.header == "header"
    assert read_labels(written).tolist() == labels.tolist()
