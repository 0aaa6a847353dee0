"""Which mask belongs to which frame, from names and counts alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.pairing import Pairer


@dataclass
class Files:
    names: list[str] | None
    count: int
    stated: int
    cut: bool = False


def files(*names: str, count: int = 0, stated: int = 0) -> Files:
    count = len(names) or count
    return Files(list(names) if names else None, count, stated or count)


def frames(*numbers: int, form: str = "{:05d}.jpg") -> Files:
    return files(*(form.format(number) for number in numbers))


def paired(mine: Files, theirs: Files, chosen: Any = None, numbered: bool = False, **options: Any) -> list[int | None]:
    chosen = range(mine.count) if chosen is None else chosen
    return Pairer(mine, theirs, chosen, numbered=numbered).match(**options).at


def refusal(mine: Files, theirs: Files, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        paired(mine, theirs, **options)
    return str(refused.value)


def refusal_of(mine: Files, theirs: Files, chosen: Any) -> str:
    with pytest.raises(InputError) as refused:
        paired(mine, theirs, chosen)
    return str(refused.value)


@pytest.mark.parametrize(
    "form", ["{:05d}.png", "{}.png", "mask_{:04d}.npy", "{:05d}_mask.png", "v1_{:03d}_obj7.png", "a/b/{:06d}.json"]
)
def test_equal_numbers_belong_together_whatever_stands_around_them(form: str) -> None:
    assert paired(frames(*range(4, 9)), frames(*range(9), form=form)) == [4, 5, 6, 7, 8]


def test_equal_stems_belong_together_in_any_order() -> None:
    assert paired(files("a.jpg", "b.jpg", "c.jpg"), files("c.png", "a.png", "b.png")) == [1, 2, 0]


def test_stems_that_differ_in_how_an_accent_is_composed_are_equal() -> None:
    assert paired(files("caf\u00e9.jpg", "the.jpg"), files("the.png", "cafe\u0301.png")) == [1, 0]


def test_decimal_numbers_are_numbers() -> None:
    assert paired(files("0.25.jpg", "0.5.jpg"), files("0.50.png", "0.250.png")) == [1, 0]


def test_names_that_say_nothing_leave_the_order() -> None:
    assert paired(files("x.jpg", "y.jpg"), files("one.png", "two.png")) == [0, 1]
    assert paired(files(count=3), frames(7, 8, 9)) == [0, 1, 2]
    assert paired(frames(7, 8, 9), files(count=3)) == [0, 1, 2]
    assert paired(files("photo_17.jpg"), files("mask_1.png")) == [0]


def test_counts_that_differ_without_names_are_both_said() -> None:
    assert "3 frames but 2 masks" in refusal(files(count=3), files(count=2))
    assert "3 frames but 2 masks" in refusal(frames(1, 2, 3), files("x.png", "y.png"))


@pytest.mark.parametrize("shift", [1, 4, 100])
def test_equal_counts_and_other_numbers_are_refused_with_both_readings(shift: int) -> None:
    mine, theirs = frames(*range(8)), frames(*range(shift, 8 + shift), form="{:05d}.png")
    text = refusal(mine, theirs)
    assert f"00000.jpg and {shift:05d}.png, 00001.jpg and {1 + shift:05d}.png" in text
    assert text.count(" and 0") == 5, "the first five"
    assert '`pair="order"`' in text
    assert paired(mine, theirs, pair="order") == list(range(8))


def test_masks_that_begin_like_another_frame_are_not_taken_in_order() -> None:
    mine = files("a.jpg", "a-b.jpg", "a_c.jpg")
    assert '`pair="order"`' in refusal(mine, files("a-b_m.png", "a_m.png", "a_c_m.png"))
    assert paired(mine, files("a_m.png", "a-b_m.png", "a_c_m.png")) == [0, 1, 2]


def test_two_masks_of_each_frame_are_not_taken_in_order() -> None:
    theirs = files(*(f"{i:05d}_{k}.png" for i in range(2) for k in (1, 2)))
    assert '`pair="order"`' in refusal(frames(*range(4)), theirs)


def test_names_that_contradict_elsewhere_are_not_believed_in_a_part() -> None:
    with pytest.raises(InputError, match="contradict their order"):
        paired(frames(*range(8)), frames(*range(1, 9)), chosen=[2, 4])


def test_names_are_believed_where_that_is_asked_for() -> None:
    mine, theirs = frames(*range(8)), frames(*range(4, 12))
    assert paired(mine, theirs, missing="empty") == [None] * 4 + [0, 1, 2, 3]
    assert "4 of 8 frames have no mask (00000.jpg, " in refusal(mine, theirs, pair="name")
    assert "no stem or number in common" in refusal(files("a.png"), files("b.png"), pair="name")


def test_frames_without_a_mask_are_named_and_can_be_empty() -> None:
    mine, theirs = frames(*range(6)), frames(2, 3, 4, 5)
    text = refusal(mine, theirs)
    assert "2 of 6 frames have no mask (00000.jpg, 00001.jpg)" in text
    assert '`missing_masks="empty"`' in text
    found = Pairer(mine, theirs, range(6)).match(missing="empty")
    assert found.at == [None, None, 0, 1, 2, 3]
    assert found.notes == ["2 frames have no mask, the object counts as unseen there: 00000.jpg, 00001.jpg."]


def test_masks_of_the_whole_video_serve_a_part_of_its_frames() -> None:
    found = Pairer(frames(3, 4), frames(*range(9)), range(2)).match()
    assert found.at == [3, 4]
    assert found.notes == ["7 of 9 masks belong to no frame and were left out."]


def test_only_the_chosen_frames_need_a_mask() -> None:
    assert paired(frames(*range(9)), frames(3, 4, 5), chosen=[3, 5]) == [0, 2]
    assert paired(files(count=9), files(count=9), chosen=[3, 5]) == [3, 5]
    assert paired(files(count=9), files(count=2), chosen=[3, 5]) == [0, 1]


def test_a_video_cut_short_keeps_the_masks_of_the_frames_that_its_header_states() -> None:
    assert paired(files(count=3, stated=6), files(count=6)) == [0, 1, 2]


def test_numbers_in_the_names_of_masks_are_those_of_the_frames_of_a_video() -> None:
    video = files(count=16)
    masks = frames(*range(8, 16), form="{:05d}.png")
    assert paired(video, masks, chosen=range(8, 16)) == list(range(8))
    assert "frame 0 and 00008.png" in refusal_of(video, masks, range(8))
    assert "contradict" in refusal_of(files(count=8), frames(*range(4, 12)), range(8))
    assert "contradict" in refusal_of(video, frames(*range(8)), range(0, 16, 2))
    assert paired(video, frames(*range(8)), chosen=range(0, 16, 2), pair="order") == list(range(8))
    assert paired(files(count=8), frames(*range(1, 9))) == list(range(8))
    assert paired(files(count=8), frames(*range(7)), missing="empty") == [*range(7), None]
    assert "1 of 8 frames have no mask (7)" in refusal(files(count=8), frames(*range(7)))


def test_a_video_of_which_only_the_beginning_was_counted_takes_the_masks_of_all() -> None:
    assert paired(Files(None, 5, 10, cut=True), files(count=8)) == [0, 1, 2, 3, 4]


def test_numbers_of_frames_in_a_video_are_places_where_frames_have_no_numbers() -> None:
    keys = files("0", "2", "1")
    assert paired(files(count=3), keys, numbered=True) == [0, 2, 1]
    assert "1 of 4 frames have no mask (3)" in refusal(files(count=4), keys, numbered=True)


def test_numbers_of_frames_in_a_video_fit_frames_counted_from_one() -> None:
    assert paired(frames(1, 2, 3), files("0", "1", "2"), numbered=True) == [0, 1, 2]


def test_numbers_that_could_be_places_or_names_are_refused() -> None:
    mine, theirs = frames(10, 11, 12), files(*map(str, range(40)))
    assert '`pair="name"`' in refusal(mine, theirs, numbered=True)
    assert paired(mine, theirs, numbered=True, pair="name") == [10, 11, 12]
    assert paired(mine, theirs, numbered=True, pair="order") == [0, 1, 2]
    assert paired(mine, files("10", "11", "12"), numbered=True) == [0, 1, 2]


def test_places_are_not_taken_for_numbers_where_frames_are_missing() -> None:
    assert '`pair="name"`' in refusal(frames(2, 3, 4), files("0", "1", "2", "3"), numbered=True)


def test_depth_is_called_depth_and_has_no_empty_maps() -> None:
    with pytest.raises(InputError, match="1 of 2 frames have no depth map") as refused:
        Pairer(frames(0, 1), frames(1), range(2), "depth map").match()
    assert "missing_masks" not in str(refused.value)


def test_a_pair_never_joins_other_names_than_the_slow_way_does() -> None:
    draw = random.Random(7)
    for _ in range(300):
        mine = sorted(draw.sample(range(40), draw.randint(2, 9)))
        theirs = draw.sample(range(40), draw.randint(2, 9))
        try:
            at = paired(frames(*mine), frames(*theirs, form="m{}.png"))
        except InputError:
            assert not set(mine) <= set(theirs)
            continue
        assert [theirs[i] for i in at if i is not None] == mine
