"""Prompts are scaled and padded as the authors' code does, and what makes no sense is refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.families.sameo.config import Config
from amodal.runtime.families.sameo.prompts import read_prompts

CONFIG = Config(height=64, width=128, embedding=8, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
SIZE = (100, 400)


def slowly(points: Any, labels: Any) -> tuple[Any, Any]:
    """`rescale_and_pad` of the authors' code, a coordinate at a time."""
    placed, kinds = np.full((len(points), 6, 2), -1.0), np.full((len(points), 6), -1.0)
    for i, (prompt, its) in enumerate(zip(points, labels, strict=True)):
        for j, (x, y) in enumerate(prompt[:6]):
            placed[i, j] = (x * 128 / 400 if x >= 0 else -1.0), (y * 64 / 100 if y >= 0 else -1.0)
            kinds[i, j] = its[j]
    return placed, kinds


def test_boxes_are_scaled_and_empty_slots_padded() -> None:
    boxes = [[10, 20, 30, 40], [-5.5, 3, 500, 60.25], [0, -1, 1, 100]]
    found = read_prompts(CONFIG, SIZE, boxes, scores=[1, 0.5, 0.25])
    points, labels = slowly(np.reshape(boxes, (3, 2, 2)), [[2, 3]] * 3)
    np.testing.assert_allclose(found.points, points, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)
    assert (found.points.dtype, found.labels.dtype, found.points.shape) == (np.float32, np.float32, (3, 6, 2))
    np.testing.assert_array_equal(found.scores, [1, 0.5, 0.25])


def test_points_follow_their_box() -> None:
    boxes, points = [[10, 20, 30, 40]], [[[15, 25], [0, 0], [399, 99]]]
    found = read_prompts(CONFIG, SIZE, boxes, points, [[1, 0, -1]])
    expected, labels = slowly([[[10, 20], [30, 40], [15, 25], [0, 0], [-1, -1]]], [[2, 3, 1, 0, -1]])
    np.testing.assert_allclose(found.points, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)


def test_too_many_points_are_cut_only_if_asked() -> None:
    points, labels = np.full((1, 10, 2), 9.0), np.array([[1] * 5 + [0] * 5])
    with pytest.raises(InputError, match=r"12 points, those of a box included, and this bundle takes 6.*cut_points"):
        read_prompts(CONFIG, SIZE, [[1, 2, 30, 40]], points, labels)
    found = read_prompts(CONFIG, SIZE, [[1, 2, 30, 40]], points, labels, cut_points=True)
    np.testing.assert_array_equal(found.labels, [[2, 3, 1, 1, 1, 1]])


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), np.float32)])
def test_no_boxes_are_no_prompts(boxes: Any) -> None:
    found = read_prompts(CONFIG, SIZE, boxes)
    assert (found.points.shape, found.labels.shape, len(found.scores)) == ((0, 6, 2), (0, 6), 0)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "needs boxes or points; neither was given"),
        ([1, 2, 3, 4], r"shape \[4\]; expected \[N, 4\].*write \[box\]"),
        ([[1, 2, 3]], r"shape \[1, 3\]"),
        ([[1, 2, 3, "x"]], "expected numbers"),
        ([[1, 2, 30, 40], [1, 2, np.nan, 4]], r"box 1, \(1, 2, nan, 4\), is not finite"),
        ([[1, 2, 30, np.inf]], "is not finite"),
        ([[1, 2, 30, 40], [1, 2, 30, 40], [5, 6, 5, 9]], r"box 2, \(5, 6, 5, 9\), ends where it begins or before"),
        ([[1, 2, 30, 40], [1, 2, 30, 40], [50, 6, 5, 9]], "with x1 < x2"),
        ([[300, 60, 30, 20], [200, 50, 20, 60], [1, 2, 30, 40]], r"2 of 3 boxes.*\(x, y, width, height\)"),
        ([[0.1, 0.2, 0.5, 0.9]], "look like fractions of the picture"),
        ([[400, 2, 430, 40]], r"lies outside the picture, 100x400"),
        ([[-30, 2, 0, 40]], "lies outside"),
        ([[1, 2, 3, 4], [1, 100, 3, 400]], "box 1.*lies outside"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(boxes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_prompts(CONFIG, SIZE, boxes)
    assert refused.value.field == "boxes"


@pytest.mark.parametrize(
    ("points", "labels", "field", "message"),
    [
        ([[[1, 2]]], None, "point_labels", "given without point_labels"),
        ([[1, 2]], [1], "points", r"shape \[1, 2\].*write \[points\]"),
        ([[[1, 2]]], [[1, 1]], "point_labels", r"point_labels have shape \[1, 2\]"),
        ([[[1, 2]]], [[4]], "point_labels", "point_labels hold 4; .* 2 and 3 a box's"),
        ([[[1, 101]]], [[1]], "points", r"point 0 of prompt 0, \(1, 101\), lies outside"),
        ([[[1, 2], [np.nan, 1]]], [[1, 0]], "points", r"point 1 of prompt 0, \(nan, 1\), is not finite"),
        (None, [[1]], "boxes", "neither was given"),
    ],
)
def test_points_that_make_no_sense_are_refused(points: Any, labels: Any, field: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_prompts(CONFIG, SIZE, None, points, labels)
    assert refused.value.field == field


def test_what_does_not_fit_together_is_refused() -> None:
    box = [[1, 2, 30, 40]]
    with pytest.raises(InputError, match="1 boxes, and points of 2"):
        read_prompts(CONFIG, SIZE, box, [[[1, 2]], [[3, 4]]], [[1], [1]])
    with pytest.raises(InputError, match="point_labels hold 2"):
        read_prompts(CONFIG, SIZE, box, [[[1, 2]]], [[2]])
    with pytest.raises(InputError, match="there are none; give `points`"):
        read_prompts(CONFIG, SIZE, box, None, [[1]])
    with pytest.raises(InputError, match=r"scores have shape \[2\]; expected 1"):
        read_prompts(CONFIG, SIZE, box, scores=[1, 2])
    with pytest.raises(InputError, match="scores are not all finite"):
        read_prompts(CONFIG, SIZE, box, scores=[np.nan])
