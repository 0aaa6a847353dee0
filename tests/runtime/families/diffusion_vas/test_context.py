"""Context layouts, spelled out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.context import check_layout, context_rows


def embeddings(frames: int) -> Any:
    """e(f) is [f + 1, 10 (f + 1)], so that a row can be told from every other and from zeros."""
    return np.float32([[f + 1, 10 * (f + 1)] for f in range(frames)])


def which(rows: Any) -> list[list[int | None]]:
    """For each CFG row, the number of the frame whose embedding stands at each place; None for zeros."""
    assert (rows[..., 1] == 10 * rows[..., 0]).all(), "rows are whole embeddings"
    return [[int(v) - 1 if v else None for v in row] for row in rows[..., 0].tolist()]


O = None  # noqa: E741 (a row of zeros)


@pytest.mark.parametrize(
    ("frames", "layout", "expected"),
    [
        (3, "reference", [[O, 0, O], [1, O, 2]]),
        (4, "reference", [[O, 0, O, 1], [O, 2, O, 3]]),
        (5, "reference", [[O, 0, O, 1, O], [2, O, 3, O, 4]]),
        (1, "reference", [[O], [0]]),
        (3, "aligned", [[O, O, O], [0, 1, 2]]),
        (4, "aligned", [[O, O, O, O], [0, 1, 2, 3]]),
        (3, "sequence", [[O, O, O], [0, 1, 2]]),
    ],
)
def test_guided_rows_are_as_the_layout_has_them(frames: int, layout: Any, expected: Any) -> None:
    rows = context_rows(embeddings(frames), layout, guided=True)
    assert rows.shape == (2, frames, 2)
    assert rows.dtype == np.float32
    assert which(rows) == expected


@pytest.mark.parametrize("frames", [14, 25])
def test_the_reference_layout_has_the_rows_of_the_notes(frames: int) -> None:
    uncond, cond = which(context_rows(embeddings(frames), "reference", guided=True))
    joined = [row for f in range(frames) for row in (None, f)]  # each frame's zero negative, then its embedding
    for f in range(frames):
        assert uncond[f] == ((f - 1) // 2 if f % 2 else None)
        assert cond[f] == joined[frames + f]
    # What the temporal blocks attend to.
    assert uncond[0] is None
    assert cond[0] == ((frames - 1) // 2 if frames % 2 else None)


@pytest.mark.parametrize("layout", ["reference", "aligned", "sequence"])
def test_without_guidance_every_layout_has_one_row_of_each_frames_own_embedding(layout: Any) -> None:
    assert which(context_rows(embeddings(4), layout, guided=False)) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("wanted", "exported", "used"),
    [
        (None, "reference", "reference"),
        (None, "sequence", "sequence"),
        ("aligned", "reference", "aligned"),
        ("reference", "aligned", "reference"),
        ("sequence", "sequence", "sequence"),
    ],
)
def test_a_bundle_serves_its_own_layout_and_the_other_of_one_token(wanted: Any, exported: Any, used: str) -> None:
    assert check_layout(wanted, exported) == used


@pytest.mark.parametrize(
    ("wanted", "exported"), [("sequence", "reference"), ("reference", "sequence"), ("aligned", "sequence")]
)
def test_a_layout_the_graphs_were_not_written_for_is_refused(wanted: Any, exported: Any) -> None:
    with pytest.raises(InputError, match=f"--context {wanted}"):
        check_layout(wanted, exported)


def test_an_unknown_layout_is_named() -> None:
    unknown: Any = "both"
    with pytest.raises(InputError, match="'both' is unknown; expected reference, aligned or sequence"):
        check_layout(unknown, "reference")
