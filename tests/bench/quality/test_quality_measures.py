"""Each measure against a slow reference, written from its definition with plain loops."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest

from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate, measures
from amodal.bench.quality.report import measure_clip
from amodal.runtime.errors import InputError

T, H, W = 5, 10, 16


def blobs(seed: int, shape: tuple[int, int, int] = (T, H, W), share: float = 0.5) -> Any:
    """Masks of a few random rectangles, some frames of them empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros(shape, bool)
    for mask in masks:
        for _ in range(rng.integers(0, 4)):
            y, x = rng.integers(0, shape[1] - 2), rng.integers(0, shape[2] - 2)
            mask[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
    return masks & (rng.random(shape) < share * 2)


def pixels(mask: Any) -> set[tuple[int, int]]:
    return {(y, x) for y, x in product(range(mask.shape[0]), range(mask.shape[1])) if mask[y, x]}


def slow_iou(a: set[Any], b: set[Any], epsilon: float = 0.0) -> float:
    union = len(a | b) + epsilon
    return len(a & b) / union if union else 1.0


def slow_resize(mask: Any, height: int, width: int) -> set[tuple[int, int]]:
    """Linear interpolation between pixel centres, borders repeated, then at least one half."""
    rows, columns = mask.shape
    there = set()
    for y, x in product(range(height), range(width)):
        at_y, at_x = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
        value = 0.0
        for dy, dx in product((0, 1), (0, 1)):
            row, column = math.floor(at_y) + dy, math.floor(at_x) + dx
            weight = (1 - abs(at_y - row)) * (1 - abs(at_x - column))
            value += weight * mask[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
        if value >= 0.5:
            there.add((y, x))
    return there


def slow_erode(there: set[tuple[int, int]], height: int, width: int) -> set[tuple[int, int]]:
    """A pixel stays if the 5x5 square around it is set, as far as that lies in the frame."""
    return {
        (y, x)
        for y, x in there
        if all(
            (y + dy, x + dx) in there
            for dy, dx in product(range(-2, 3), range(-2, 3))
            if 0 <= y + dy < height and 0 <= x + dx < width
        )
    }


def slow_box(mask: Any) -> tuple[int, int, int, int] | None:
    there = pixels(mask)
    if not there:
        return None
    ys, xs = [y for y, _ in there], [x for _, x in there]
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1


def slow_union(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a or b
    x, y = min(a[0], b[0]), min(a[1], b[1])
    return x, y, max(a[0] + a[2], b[0] + b[2]) - x, max(a[1] + a[3], b[1] + b[3]) - y


def slow_box_iou(a: Any, b: Any) -> float:
    """By counting the pixels that each box covers."""
    cover = [
        {(x, y) for x in range(q[0], q[0] + q[2]) for y in range(q[1], q[1] + q[3])} if q else set() for q in (a, b)
    ]
    return slow_iou(cover[0], cover[1])


@pytest.mark.parametrize("seed", range(4))
def test_iou_agrees_with_counting_pixels(seed: int) -> None:
    predicted, amodal = blobs(seed), blobs(seed + 100)
    predicted[0] = amodal[0] = False
    expected = [slow_iou(pixels(p), pixels(a)) for p, a in zip(predicted, amodal, strict=True)]
    np.testing.assert_allclose(measures.iou(predicted, amodal), expected)
    assert expected[0] == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_hidden_iou_counts_misses_and_passes_over_frames_with_nothing_hidden(seed: int) -> None:
    predicted, amodal = blobs(seed), blobs(seed + 100)
    modal = amodal & blobs(seed + 200)
    amodal[1, 0, 0], modal[1] = True, False
    predicted[1] = False  # missed
    modal[2] = amodal[2]  # nothing hidden
    expected = []
    for p, a, m in zip(predicted, amodal, modal, strict=True):
        hidden = pixels(a) - pixels(m)
        expected.append(slow_iou(pixels(p) - pixels(m), hidden) if hidden else math.nan)
    np.testing.assert_allclose(measures.hidden_iou(predicted, amodal, modal), expected)
    assert expected[1] == 0.0
    assert math.isnan(expected[2])


@pytest.mark.parametrize("seed", range(4))
def test_official_ious_agree_with_loops(seed: int) -> None:
    # Twice the size: there the weights are exact in cv2's fixed point, too.
    size = (2 * H, 2 * W)
    predicted, amodal = blobs(seed, share=1), blobs(seed + 100, share=1)
    modal = amodal & blobs(seed + 200, share=1)
    whole, hidden = measures.official_ious(predicted, amodal, modal, size)
    for t in range(T):
        truth, visible = slow_resize(amodal[t], *size), slow_resize(modal[t], *size)
        guess = slow_resize(predicted[t], *size) | visible
        assert whole[t] == pytest.approx(slow_iou(guess, truth, 1e-6))
        value = slow_iou(slow_erode(guess - visible, *size), slow_erode(truth - visible, *size), 1e-6)
        assert hidden[t] == pytest.approx(value) if value >= 1e-6 else math.isnan(hidden[t])


@pytest.mark.parametrize(("height", "width", "tolerance"), [(800, 1280, 1e-9), (80, 128, 5e-3), (160, 64, 5e-3)])
def test_official_masks_are_1280_wide_and_800_high(height: int, width: int, tolerance: float) -> None:
    # From the upper to the lower border, in columns of the official size.
    amodal = np.zeros((1, height, width), bool)
    amodal[0, :, 300 * width // 1280 : 900 * width // 1280] = True
    modal, predicted = amodal.copy(), amodal.copy()
    modal[0, :, 600 * width // 1280 :] = False  # 300 columns are hidden, of which 200 are found
    predicted[0, :, 800 * width // 1280 :] = False
    whole, hidden = measures.official_ious(predicted, amodal, modal)
    assert whole[0] == pytest.approx(5 / 6, abs=tolerance)
    # Two pixels less at the left and right; the frame's border takes none. Without resizing it would be less by far.
    assert hidden[0] == pytest.approx(196 / 296, abs=tolerance)


def test_official_iou_leaves_out_what_strict_charges_for() -> None:
    amodal = np.zeros((2, H, W), bool)
    amodal[:, 1:9, 1:15] = True
    modal = amodal.copy()
    modal[:, :, 8:] = False
    predicted = amodal.copy()
    predicted[1] = modal[1]
    report = evaluate([(ClipTruth("clip", modal, amodal), ClipPrediction([predicted]))])
    row = report.row("Top-1")
    assert row.official is not None
    assert row.strict is not None
    assert (row.official.miou_occ, row.official.frames_occ) == (pytest.approx(1), 1)
    assert (row.strict.miou_occ, row.strict.frames_occ) == (0.5, 2)
    modal_row = report.row("modal")
    assert modal_row.official is not None
    assert modal_row.official.miou_occ is None


def test_an_absent_object_that_is_not_predicted_counts_0_officially_and_1_strictly() -> None:
    nothing = np.zeros((1, H, W), bool)
    row = evaluate([(ClipTruth("clip", nothing, nothing), ClipPrediction([nothing]))]).row("Top-1")
    assert row.official is not None
    assert row.strict is not None
    assert (row.official.miou, row.strict.miou) == (0.0, 1.0)
    assert row.ap25 is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("padded", [False, True])
def test_boxes_follow_the_padded_frame_protocol(seed: int, padded: bool) -> None:
    amodal = blobs(seed + 100)
    amodal[3] = False
    modal = amodal & blobs(seed + 200)
    pad_y, pad_x = (H // 4, W // 4) if padded else (0, 0)
    predicted = blobs(seed, (T, H + 2 * pad_y, W + 2 * pad_x))
    predicted[0] = False  # the visible mask's box stands in
    expected = []
    for p, a, m in zip(predicted, amodal, modal, strict=True):
        box = slow_box(p)
        if box is not None:
            box = (box[0] - pad_x, box[1] - pad_y, box[2], box[3])
        true = slow_box(a)
        expected.append(math.nan if true is None else slow_box_iou(slow_union(box, slow_box(m)), true))
    frames = measure_clip(ClipTruth("clip", modal, amodal), ClipPrediction([predicted]), "strict")["Top-1"]
    np.testing.assert_allclose(frames["box_iou"], expected)
    row = evaluate([(ClipTruth("clip", modal, amodal), ClipPrediction([predicted]))], "strict").row("Top-1")
    known = [value for value in expected if not math.isnan(value)]
    for limit, share in ((0.25, row.ap25), (0.5, row.ap50), (0.75, row.ap75)):
        assert share == pytest.approx(sum(value > limit for value in known) / len(known))


def test_padded_predictions_reach_true_boxes_outside_of_the_frame() -> None:
    padded = np.zeros((1, H + 2 * (H // 4), W + 2 * (W // 4)), bool)
    padded[0, 4:10, 1:9] = True  # in the frame's pixels x -3 to 5, y 2 to 8
    inside = padded[:, H // 4 : H // 4 + H, W // 4 : W // 4 + W]
    truth = ClipTruth("clip", inside, inside, boxes=np.array([[-3.0, 2.0, 8.0, 6.0]]))
    assert measure_clip(truth, ClipPrediction([padded]), "strict")["Top-1"]["box_iou"][0] == 1
    assert measure_clip(truth, ClipPrediction([inside]), "strict")["Top-1"]["box_iou"][0] == pytest.approx(5 / 8)
    # Masks are compared within the frame.
    assert measure_clip(truth, ClipPrediction([padded]))["Top-1"]["iou"][0] == 1


def test_ap_asks_for_more_than_the_threshold() -> None:
    amodal = np.zeros((1, H, W), bool)
    amodal[0, 0:4, 0:4] = True
    modal = np.zeros_like(amodal)
    predicted = np.zeros_like(amodal)
    predicted[0, 0:4, 0:2] = True  # box IoU is exactly 0.5
    row = evaluate([(ClipTruth("clip", modal, amodal), ClipPrediction([predicted]))], "strict").row("Top-1")
    assert (row.ap25, row.ap50, row.ap75) == (1, 0, 0)


def test_boxes_that_were_predicted_as_such_are_taken() -> None:
    amodal = np.zeros((1, H, W), bool)
    amodal[0, 2:6, 2:6] = True
    given = ClipPrediction([amodal], boxes=[np.array([[2, 2, 4, 2]])])
    assert measure_clip(ClipTruth("clip", amodal, amodal), given)["Top-1"]["box_iou"][0] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_flicker_agrees_with_counting_pixels(seed: int) -> None:
    predicted, amodal = blobs(seed), blobs(seed + 100)
    predicted[:2] = amodal[:2] = False
    expected = []
    for t in range(T - 1):
        covered = unexplained = 0
        for y, x in product(range(H), range(W)):
            covered += bool(predicted[t, y, x] or predicted[t + 1, y, x] or amodal[t, y, x] or amodal[t + 1, y, x])
            unexplained += predicted[t, y, x] != predicted[t + 1, y, x] and amodal[t, y, x] == amodal[t + 1, y, x]
        expected.append(unexplained / covered if covered else math.nan)
    np.testing.assert_allclose(measures.flicker(predicted, amodal), expected)
    assert math.isnan(expected[0])
    assert np.nanmax(expected) <= 1


def test_flicker_is_0_for_the_truth_and_for_what_stays_and_1_for_what_comes_from_nothing() -> None:
    amodal = blobs(3, share=1)
    amodal[:, 0, 0] = True
    assert measures.flicker(amodal, amodal).max() == 0
    still = np.repeat(blobs(4, share=1)[1:2], T, axis=0)
    assert measures.flicker(still, amodal).max() == 0
    nothing, blinking = np.zeros((2, H, W), bool), np.zeros((2, H, W), bool)
    blinking[1, 2:4, 2:4] = True
    assert measures.flicker(blinking, nothing).tolist() == [1.0]


def test_psnr_is_that_of_the_hidden_pixels_alone() -> None:
    rng = np.random.default_rng(0)
    rgb, whole = rng.integers(0, 256, (2, T, H, W, 3), np.uint8)
    hidden = blobs(1, share=1)
    hidden[0] = False
    hidden[1, 0, 0] = True
    rgb[1] = whole[1]
    expected = []
    for t in range(T):
        squares = [
            (int(rgb[t, y, x, c]) - int(whole[t, y, x, c])) ** 2 for y, x in sorted(pixels(hidden[t])) for c in range(3)
        ]
        mse = sum(squares) / len(squares) if squares else math.nan
        expected.append(100.0 if mse == 0 else 10 * math.log10(255**2 / mse))
    np.testing.assert_allclose(measures.hidden_psnr(rgb, whole, hidden), expected)
    assert math.isnan(expected[0])
    assert expected[1] == 100


def test_mean_colour_is_that_of_the_visible_part_of_the_frame_or_else_of_the_clip() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, H, W, 3), np.uint8)
    modal = blobs(5, (3, H, W), share=1)
    modal[0], modal[1, 0, 0] = False, True

    def mean(places: list[tuple[int, int, int]]) -> list[float]:
        return [sum(int(frames[t, y, x, c]) for t, y, x in places) / len(places) for c in range(3)]

    by_frame = [[(t, y, x) for y, x in pixels(modal[t])] for t in range(3)]
    filled = measures.mean_colour(frames, modal)
    for t in range(3):
        colour = mean(by_frame[t] or [place for places in by_frame for place in places])
        assert np.abs(filled[t] - np.array(colour)).max() <= 0.5
    assert (measures.mean_colour(frames, np.zeros_like(modal)) == 128).all()


@pytest.mark.parametrize("seed", range(4))
def test_convex_is_the_hull_of_the_pixels(seed: int) -> None:
    modal = np.random.default_rng(seed).random((T, H, W)) < [[[0.0]], [[0.01]], [[0.05]], [[0.1]], [[0.5]]]
    for mask, filled in zip(modal, measures.convex_hull(modal), strict=True):
        points = sorted((x, y) for y, x in pixels(mask))
        edges = [
            (a, b)
            for a, b in product(points, points)
            if a != b and all((b[0] - a[0]) * (q[1] - a[1]) >= (b[1] - a[1]) * (q[0] - a[0]) for q in points)
        ]
        for y, x in product(range(H), range(W)):
            # How far outside of the worst edge's line a centre lies; cv2 draws the outline to the nearest pixel.
            outside = max(
                (((b[1] - a[1]) * (x - a[0]) - (b[0] - a[0]) * (y - a[1])) / math.dist(a, b) for a, b in edges),
                default=0.0 if (x, y) in points else 9.0,
            )
            within = (
                all(min(p[i] for p in points) <= (x, y)[i] <= max(p[i] for p in points) for i in (0, 1))
                if points
                else False
            )
            if outside <= 1e-9 and within:
                assert filled[y, x]
            elif outside > 0.75 or not within:
                assert not filled[y, x]


def test_top_k_takes_the_best_sample_of_each_frame_for_each_measure() -> None:
    amodal = blobs(7, share=1)
    modal = amodal & blobs(8, share=1)
    samples = [blobs(seed, share=1) | modal for seed in (20, 21, 22)]
    truth = ClipTruth("clip", modal, amodal)
    singles = [measure_clip(truth, ClipPrediction([masks]))["Top-1"] for masks in samples]
    best = measure_clip(truth, ClipPrediction(samples))["Top-3"]
    assert "flicker" not in best
    for name, values in best.items():
        for t in range(T):
            known = [single[name][t] for single in singles if not math.isnan(single[name][t])]
            assert values[t] == max(known) if known else math.isnan(values[t])
    report = evaluate([(truth, ClipPrediction(samples))])
    assert [row.name for row in report.rows] == ["modal", "convex", "Top-1", "Top-3"]
    assert report.row("Top-3").strict.miou >= report.row("Top-1").strict.miou  # type: ignore[union-attr]


def test_measuring_needs_no_torch() -> None:
    code = "import sys, amodal.bench.quality; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda m: ClipTruth("clip", m, m.astype(np.uint8)), "expected bool [T, H, W]"),
        (lambda m: ClipTruth("clip", m[:2], m), "clip: there are 2 visible masks, but 5 whole-object masks"),
        (lambda m: ClipTruth("clip", m, m, whole_rgb=np.zeros((T, H, W), np.uint8)), "expected uint8 [T, H, W, 3]"),
        (lambda m: ClipTruth("clip", m, m, boxes=np.full((T, 4), np.nan)), "expected finite numbers [5, 4]"),
        (lambda m: ClipPrediction([]), "no sample"),
        (lambda m: ClipPrediction([m, m[:, :4]]), "16 wide and 4 high"),
        (lambda m: ClipPrediction([m], boxes=[np.zeros((T, 4))] * 2), "2 sets of boxes for 1 samples"),
        (lambda m: evaluate([]), "no clip to measure"),
        (lambda m: evaluate([], "exact"), "use 'official', 'strict' or 'both'"),  # type: ignore[arg-type]
        (
            lambda m: evaluate([(ClipTruth("clip", m, m), ClipPrediction([m[:3]]))]),
            "clip: 3 masks were predicted for 5",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused_in_a_sentence(make: Any, what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)):
        make(blobs(0))
