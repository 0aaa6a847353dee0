"""SAMEO's masks against those that the authors' code drew, and the enlargement of logits against torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.compare import relative_l2
from amodal.runtime.arrays.resampling import torch_bicubic
from amodal.runtime.families.sameo.upsampling import masks_at
from amodal.runtime.loading import load

SIZES = [((64, 64), (120, 200)), ((32, 64), (61, 47)), ((16, 16), (16, 40)), ((40, 30), (240, 400)), ((5, 7), (1, 3))]


def enlarged(low: Any, size: tuple[int, int]) -> Any:
    torch = pytest.importorskip("torch")
    found = torch.nn.functional.interpolate(torch.from_numpy(low)[None], size, mode="bicubic", align_corners=False)
    return found[0].numpy()


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_logits_are_enlarged_as_torch_does(before: tuple[int, int], after: tuple[int, int], device: Any) -> None:
    low = np.random.default_rng(1).standard_normal((3, *before)).astype(np.float32)
    expected = enlarged(low, after)
    np.testing.assert_allclose(torch_bicubic(low, after), expected, atol=1e-5)
    on_device = torch_bicubic(device.asarray(low), after, device)
    np.testing.assert_array_equal(device.asnumpy(on_device), torch_bicubic(low, after))


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_masks_are_those_of_torch_even_where_logits_are_next_to_the_threshold(
    before: tuple[int, int], after: tuple[int, int], device: Any
) -> None:
    low = np.random.default_rng(2).standard_normal((12, *before)).astype(np.float32) * 8
    expected = enlarged(low, after)
    threshold = float(expected[0, 0, 0])
    sure = np.abs(expected - np.float32(threshold)) > 1e-5  # beyond the rounding of weights and sums
    for masks in (
        masks_at(low, after, threshold),
        device.asnumpy(masks_at(device.asarray(low), after, threshold, device)),
    ):
        assert not (masks != (expected >= np.float32(threshold)))[sure].any()


def test_opencv_alone_would_flip_pixels_next_to_the_threshold() -> None:
    cv2 = pytest.importorskip("cv2")
    low = np.random.default_rng(2).standard_normal((256, 256)).astype(np.float32) * 8
    expected = enlarged(low[None], (720, 1280))[0]
    by_opencv = cv2.resize(low, (1280, 720), interpolation=cv2.INTER_CUBIC)
    assert ((by_opencv >= 0) != (expected >= 0)).any()
    assert ((masks_at(low[None], (720, 1280), 0.0)[0] != (expected >= 0)) & (np.abs(expected) > 1e-5)).sum() == 0


def test_a_picture_and_its_prompts_give_what_the_authors_code_gives(small_bundle: Path, shared: Path) -> None:
    with np.load(shared / "sameo" / "efficientsam_small.npz") as file:
        case = dict(file)
    points, labels = case["points"][0], case["labels"][0]
    with load(small_bundle) as model:
        encoding = model.encode(case["image"])
        found = model.predict(encoding, points=points, point_labels=labels, select="all", logits=True)
        by_box = model.predict(encoding, boxes=points[:2].reshape(2, 4))
    assert relative_l2(encoding.arrays["embedding"], case["embedding"]) < 1e-5
    assert found.logits is not None
    assert relative_l2(found.logits[:, 1:], case["low_res_logits"][0]) < 5e-5
    assert relative_l2(found.logits[:, :1], case["low_res_logits_single"][0]) < 5e-5
    np.testing.assert_allclose(found.iou[:, 1:], case["iou"][0], atol=5e-5)
    expected = case["logits_bicubic"][0]
    # A logit of which 5e-5 of the largest is the error can have either sign.
    sure = np.abs(expected) > 5e-5 * np.abs(expected).max()
    assert not ((found.masks[:, 1:] != (expected >= 0)) & sure).any()
    np.testing.assert_array_equal(by_box.index, 1 + case["iou"][0, :2].argmax(axis=1))
    np.testing.assert_array_equal(by_box.masks, found.masks[[0, 1], by_box.index])
    bilinear = case["logits_bilinear_onnx"][0] >= 0
    assert (bilinear != (expected >= 0)).mean() > 0.001  # what the official graph gives is something else
