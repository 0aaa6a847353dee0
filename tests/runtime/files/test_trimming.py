from __future__ import annotations

import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.trimming import Moment, Trim


def trim(start: str = "0", stop: str | None = None, stride: str = "1") -> Trim:
    return Trim(Moment.parse(start), Moment.parse(stop) if stop else None, Moment.parse(stride))


@pytest.mark.parametrize(
    ("trimmed", "fps", "expected"),
    [
        (trim(), None, list(range(20))),
        (trim("5", "9"), None, [5, 6, 7, 8]),
        (trim("3", None, "8"), None, [3, 11, 19]),
        (trim("0.5s", "1.5s", "0.2s"), 10.0, [5, 7, 9, 11, 13]),
        (trim("1 s", "2sec"), 8.0, list(range(8, 16))),
        (trim(stop="99"), None, list(range(20))),
        (trim(stride="0.001s"), 10.0, list(range(20))),
    ],
)
def test_frames_are_chosen_as_slices_choose(trimmed: Trim, fps: float | None, expected: list[int]) -> None:
    assert list(trimmed.choose(20, fps)) == expected


@pytest.mark.parametrize(
    ("trimmed", "fps", "message"),
    [
        (trim("2s"), None, "`start` is 2 seconds, but the frames say no frame rate"),
        (trim("20"), None, r"20 frames \(0 to 19\), none of them from 20 up to the end"),
        (trim("5", "5"), None, "none of them from 5 up to 5"),
        (trim(stride="0"), None, "`stride` is 0; expected 1 or more"),
    ],
)
def test_what_chooses_nothing_is_refused(trimmed: Trim, fps: float | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trimmed.choose(20, fps)


@pytest.mark.parametrize("text", ["12", "1.5s", "0"])
def test_a_moment_is_written_as_it_was_read(text: str) -> None:
    assert str(Moment.parse(text)) == text


@pytest.mark.parametrize("text", ["", "-1", "1.5", "s", "2m", "1:20", "nan"])
def test_what_is_no_moment_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the text itself, which the option explains
        Moment.parse(text)
