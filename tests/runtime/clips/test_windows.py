import itertools
import math
from typing import get_args

import numpy as np
import pytest

from amodal.runtime.clips.windows import WindowStrategy, blend_weights, cut_blocks, windows_at
from amodal.runtime.errors import InputError

STRATEGIES = get_args(WindowStrategy)
COUNTS = [*range(1, 42), 64, 100, 128]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("frames", [2, 5, 8])
def test_windows_cover_every_frame_at_every_step_and_are_never_padded(strategy, frames):
    for count, step in itertools.product(COUNTS, range(6)):
        covered = np.zeros(count)
        for window in windows_at(strategy, count, frames, step, 6):
            assert len(window.frames) == min(frames, count)
            assert len(set(window.frames.tolist())) == len(window.frames)
            assert window.frames.min() >= 0
            assert window.frames.max() < count
            covered[window.frames] += window.weights
        np.testing.assert_allclose(covered, 1, atol=1e-6)


@pytest.mark.parametrize("strategy", ["shifted", "dilated"])
@pytest.mark.parametrize("frames", [2, 5, 8, 25])
def test_shifted_and_dilated_windows_make_no_more_calls_than_chunks(strategy, frames):
    for count, step in itertools.product(COUNTS, range(5)):
        calls, chunks = (len(windows_at(s, count, frames, step, 5)) for s in (strategy, "chunks"))
        assert calls <= chunks == math.ceil(count / frames)


def test_shifted_windows_cut_where_chunks_do_not():
    even, odd = ([w.frames.tolist() for w in windows_at("shifted", 32, 8, step, 2)] for step in (0, 1))
    assert even == [list(range(s, s + 8)) for s in (0, 8, 16, 24)]
    assert odd == [[28, 29, 30, 31, 0, 1, 2, 3], *(list(range(s, s + 8)) for s in (4, 12, 20))]


def test_dilated_windows_look_twice_as_far_in_the_first_steps():
    first, last = (windows_at("dilated", 16, 8, step, 5) for step in (0, 4))
    assert [w.frames.tolist() for w in first] == [list(range(0, 16, 2)), list(range(1, 16, 2))]
    assert [w.frames.tolist() for w in last] == [list(range(8)), list(range(8, 16))]


@pytest.mark.parametrize("count", [17, 24, 33, 64])
def test_cuts_of_dilated_windows_move_and_their_frames_are_at_most_two_apart(count):
    before, after = ([set(w.frames.tolist()) for w in windows_at("dilated", count, 8, step, 10)] for step in (0, 1))
    apart = [np.diff(sorted(frames)) for frames in before + after]
    assert all(gaps.max() <= 2 for gaps in apart)
    assert sum((gaps == 2).all() for gaps in apart) >= count // 8 - 2
    assert not any(frames in before for frames in after)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_blocks_overlap_by_half_a_window_and_end_with_the_clip(strategy):
    for count, length in itertools.product([1, 7, 8, 9, 16, 17, 100, 999], [1, 16, 40, None]):
        blocks = cut_blocks(count, 8, strategy, length)
        assert blocks[0].start == 0
        assert blocks[-1].stop == blocks[-1].final == count
        for before, after in itertools.pairwise(blocks):
            assert before.stop - before.start == after.stop - after.start
            assert before.stop - after.start >= 4
            assert before.final == after.start > before.start
            assert after.ramp == before.stop
        if strategy == "blended" and count > 8:
            assert {b.stop - b.start for b in blocks} == {8}


def test_the_share_of_the_later_block_rises_evenly():
    np.testing.assert_allclose(blend_weights(3), [0.25, 0.5, 0.75])


def test_an_unknown_strategy_and_an_empty_block_are_refused():
    with pytest.raises(InputError, match="windows 'wide' are unknown; expected shifted"):
        cut_blocks(10, 8, "wide")
    with pytest.raises(InputError, match="blocks of 0 frames"):
        cut_blocks(10, 8, "shifted", 0)
