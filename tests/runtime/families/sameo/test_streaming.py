"""Streams over a SAMEO bundle: each frame by itself."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.runtime.errors import InputError
from amodal.runtime.scenes import make_scene

from ....places import ROOT

SIZE = (80, 120)


@pytest.fixture(scope="module")
def scene() -> Any:
    return make_scene(8, 6, SIZE)


def other(number: int) -> Any:
    found = np.zeros(SIZE, bool)
    found[10:30, 20 + number : 50] = True
    return found


def test_a_frame_gives_what_it_gives_by_itself(model: Any, scene: Any) -> None:
    masks = [{7: seen, "b": other(number)} for number, seen in enumerate(scene.modal)]
    with model.stream(clock=lambda: 0.0) as stream:
        results = list(stream.over(zip(scene.frames, masks, [None] * 6, range(6), strict=True)))
    for result, picture, seen in zip(results, scene.frames, masks, strict=True):
        shown = {name: mask for name, mask in seen.items() if mask.any()}
        alone = model.predict_from_masks(picture, np.stack(list(shown.values())))
        fresh = {name: found for name, found in result.objects.items() if found.status == "fresh"}
        assert set(fresh) == set(shown)
        for index, name in enumerate(shown):
            np.testing.assert_array_equal(fresh[name].mask, alone.masks[index])
            assert fresh[name].iou == alone.iou[index]
    assert sum(len(result.births) for result in results) == 2


def test_a_stream_gives_the_masks_of_segment(model: Any, scene: Any) -> None:
    with model.stream() as stream:
        results = list(stream.over(zip(scene.frames, scene.modal, [None] * 6, range(6), strict=True)))
    seen = scene.modal.any(axis=(1, 2))
    assert 0 < seen.sum() < len(seen)
    whole = model.segment(scene.modal, rgb=scene.frames).masks_full
    np.testing.assert_array_equal([r.objects[0].mask for r in results if seen[r.number]], whole[seen])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "dilated"}, "`windows`: a SAMEO bundle draws each frame by itself, so that there are no windows"),
        ({"lookahead": 2}, "`lookahead`: .* later frames add nothing; omit it"),
        ({"gate": amodal.Gate()}, "`gate`: .* the gate needs depth"),
        ({"depth_kind": "metric"}, "`depth_kind`: .* uses no depth"),
        ({"preset": "fast"}, "`preset`: .* no sampler to set"),
        ({"steps": 3}, "`steps`: .* no sampler to set"),
        ({"seed": 23}, "`seed`: .* no sampler to set"),
        ({"every": 2}, "a window every 2 frames: expected 1, its length"),
        ({"deadline": -1.0}, "deadline -1"),
    ],
)
def test_options_without_a_meaning_are_refused(options: Any, message: str, model: Any) -> None:
    with pytest.raises(InputError, match=message) as refused:
        model.stream(**options)
    assert refused.value.field == next(iter(options))


def test_options_that_change_nothing_are_taken(model: Any) -> None:
    with model.stream(every=1, lookahead=0, windows="newest", gate=None, depth_kind=None, deadline=None) as stream:
        assert stream.options.every == 1


def test_the_program_in_the_docs_runs(capsys: Any) -> None:
    page = (ROOT / "docs" / "streams.md").read_text("utf-8")
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert 'load("default-sameo")' in program
    exec(compile(program, "streams.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    pattern = r"0\.\d\d s: object 1 is (fresh|lost), \d+ of \d+ pixels hidden"
    assert all(re.fullmatch(pattern, line) for line in lines)
