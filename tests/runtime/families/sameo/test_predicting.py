"""`Model.predict`: pictures of any kind, any number of boxes, and the choice among masks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError, NonFiniteError
from amodal.runtime.families.sameo import predicting
from amodal.runtime.files.rle import decode_rle
from amodal.runtime.loading import load

from .conftest import PICTURE


def test_boxes_are_answered_alike_however_many_are_decoded_at_once(model: Any, picture: Any, boxes: Any) -> None:
    together = model.predict(picture, boxes, scores=np.linspace(0.1, 1, 10), logits=True)
    assert (together.masks.shape, together.masks.dtype) == ((10, *PICTURE), np.bool_)
    assert together.logits.shape == (10, *model.config.low_size)
    encoding = model.encode(picture)
    for batch in (1, 3):
        found = model.predict(encoding, boxes, scores=np.linspace(0.1, 1, 10), batch=batch, logits=True)
        np.testing.assert_allclose(found.logits, together.logits, atol=1e-4)
        np.testing.assert_array_equal(found.index, together.index)
        np.testing.assert_allclose(found.score, together.score, atol=1e-6)
    np.testing.assert_allclose(together.score, np.linspace(0.1, 1, 10) * together.iou, rtol=1e-6)
    assert together.seconds >= sum(together.timings.values()) > 0


@pytest.mark.parametrize(("count", "calls"), [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2])])
def test_a_large_decoder_takes_few_boxes_at_once_on_a_cpu_with_the_same_bits(
    count: int, calls: list[int], model: Any, picture: Any, boxes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, call = [], predicting._call

    def counted(network: Any, *rest: Any) -> Any:
        def of_some(inputs: Any) -> Any:
            asked.append(len(inputs["prompts"]))
            return network(inputs)

        return call(of_some, *rest)  # type: ignore[arg-type]

    at_once = model.predict(picture, boxes=boxes[:count], logits=True)
    monkeypatch.setattr(predicting, "_call", counted)
    monkeypatch.setattr(predicting, "CELLS_ON_HOST", 1)
    in_turn = model.predict(picture, boxes=boxes[:count], logits=True)
    assert asked == calls
    for name in ("logits", "iou", "masks"):
        np.testing.assert_array_equal(getattr(in_turn, name), getattr(at_once, name))


def test_run_length_masks_and_pieces_hold_the_same_masks(model: Any, picture: Any, boxes: Any) -> None:
    dense = model.predict(picture, boxes)
    coded = model.predict_rle(picture, boxes)
    np.testing.assert_array_equal([decode_rle(rle) for rle in coded.rles], dense.masks)
    np.testing.assert_array_equal(coded.iou, dense.iou)
    pieces = list(model.predict_pieces(picture, boxes))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([piece.masks for piece in pieces]), dense.masks)
    with pytest.raises(InputError, match="one per prompt"):
        model.predict_rle(picture, boxes, select="all")


def test_the_memory_of_run_length_masks_does_not_grow_with_the_boxes(model: Any, picture: Any, boxes: Any) -> None:
    encoding, peaks = model.encode(picture), []
    for times in (1, 11):
        many = np.tile(boxes, (times, 1))
        tracemalloc.start()
        assert len(model.predict_rle(encoding, many)) == 10 * times
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    as_masks = 100 * PICTURE[0] * PICTURE[1]
    assert peaks[1] < peaks[0] + as_masks / 2  # what drawn weights give is noise, whose text is long


def test_a_choice_is_made_among_all_masks(model: Any, picture: Any, boxes: Any) -> None:
    every = model.predict(picture, boxes, select="all", logits=True)
    assert every.masks.shape == (10, 4, *PICTURE)
    rows = np.arange(10)
    expected = {"best": 1 + every.iou[:, 1:].argmax(axis=1), "first": rows * 0 + 1, "single": rows * 0}
    for select, index in expected.items():
        found = model.predict(picture, boxes, select=select)
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.masks, every.masks[rows, index])
        np.testing.assert_array_equal(found.iou, every.iou[rows, index])
    with pytest.raises(InputError, match="select 'last' is unknown; expected best, first, single, all"):
        model.predict(picture, boxes, select="last")


def test_a_higher_threshold_leaves_less(model: Any, picture: Any, boxes: Any) -> None:
    usual = model.predict(picture, boxes, logits=True)
    low, high = np.quantile(usual.logits, [0.3, 0.7])
    less = model.predict(picture, boxes, threshold=high).masks
    more = model.predict(picture, boxes, threshold=low).masks
    assert 0 < less.sum() < more.sum()
    assert not (less & ~more).any()
    for wrong in (float("nan"), "half"):
        with pytest.raises(InputError, match=f"threshold {wrong}"):
            model.predict(picture, boxes, threshold=wrong)


def test_no_boxes_give_no_masks(model: Any, picture: Any) -> None:
    found = model.predict(picture, np.zeros((0, 4)), logits=True)
    assert (found.masks.shape, found.iou.shape, len(found)) == ((0, *PICTURE), (0,), 0)
    assert model.predict_rle(picture, []).rles == []


def test_pictures_are_bytes_or_floats_and_of_any_size(model: Any, picture: Any, boxes: Any) -> None:
    expected = model.predict(picture, boxes, logits=True).logits
    for same in (
        picture / 255.0,
        (picture / 255.0).astype(np.float32),
        picture[::-1][::-1],
        np.asfortranarray(picture),
    ):
        np.testing.assert_allclose(model.predict(same, boxes, logits=True).logits, expected, atol=1e-3)
    assert model.predict(picture[:1, :1], [[0, 0, 1, 1]]).masks.shape == (1, 1, 1)
    several = [picture, picture[:40], picture[:, :50]]
    assert [encoding.size for encoding in model.encode_images(several)] == [(90, 150), (40, 150), (90, 50)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p[..., 0], r"shape \[90, 150\]; .* repeat a grey picture three times"),
        (lambda p: p[..., :1], "repeat a grey picture three times"),
        (lambda p: np.dstack([p, p[..., 0]]), "leave out the alpha channel"),
        (lambda p: p.transpose(2, 0, 1), "put the channels last"),
        (lambda p: p[None], "one picture at a time; `encode_images`"),
        (lambda p: p[:0], "none of them 0"),
        (lambda p: p.astype(np.uint16), "image is uint16; expected uint8, or floats"),
        (lambda p: p.astype(float), "values from .* divide it by 255"),
        (lambda p: np.where(p > 9, np.nan, p / 255), "values from nan"),
        (lambda p: "picture.png", "read the file"),
    ],
)
def test_pictures_of_another_kind_are_refused(spoil: Any, message: str, model: Any, picture: Any, boxes: Any) -> None:
    with pytest.raises(InputError, match=message) as refused:
        model.predict(spoil(picture), boxes)
    assert refused.value.field in ("image", None)


def test_an_encoding_belongs_to_its_model(model: Any, sameo_bundle: Path, picture: Any, boxes: Any) -> None:
    with load(sameo_bundle) as other:
        foreign = other.encode(picture)
        assert foreign.bytes > 0
    with pytest.raises(InputError, match="encoded by another model"):
        model.predict(foreign, boxes)


@pytest.mark.parametrize("batch", [0, 5])
def test_more_boxes_at_once_than_the_bundle_takes_are_refused(batch: int, model: Any, picture: Any, boxes: Any) -> None:
    with pytest.raises(InputError, match=f"batch {batch}: expected 1 to 4"):
        model.predict(picture, boxes, batch=batch)


def test_logits_that_are_not_finite_are_an_error(
    model: Any, picture: Any, boxes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = model.encode(picture)
    encoding.arrays["embedding"][...] = np.inf
    with pytest.raises(NonFiniteError, match="logits of the masks are not finite"):
        model.predict(encoding, boxes)


def test_networks_are_held_one_at_a_time_if_so_asked(model: Any, sameo_bundle: Path, picture: Any, boxes: Any) -> None:
    expected = model.predict(picture, boxes)
    with load(sameo_bundle, memory="sequential") as sparing:
        np.testing.assert_array_equal(sparing.predict(picture, boxes).masks, expected.masks)
        pieces = sparing.predict_pieces(picture, boxes)
        next(pieces)
        pieces.close()  # the decoder with it
