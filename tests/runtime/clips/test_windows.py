import itertools
import math
from typing import get_args

import numpy as np
import pytest

from amodal.runtime.clips.windows import WindowStrategy, blend_weights, cut_blocks, newest_windows, windows_at
from amodal.runtime.errors import InputError

STRATEGIES = get_args(WindowStrategy)
COUNTS = [*range(1, 42), 64, 100, 128]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("frames", [2, 5, 8])
def test_windows_decide_each_frame_once_and_are_never_padded(strategy, frames):
    for count, steps in itertools.product(COUNTS, (1, 6, 10)):
        for step in range(steps):
            covered = np.zeros(count)
            for window in windows_at(strategy, count, frames, step, steps):
                assert len(window.frames) == min(frames, count)
                assert (np.diff(window.frames) > 0).all()
                assert window.frames.min() >= 0
                assert window.frames.max() < count
                covered[window.frames] += window.weights
            missing = np.flatnonzero(np.abs(covered - 1) > 1e-6)
            if strategy in ("shifted", "dilated") and step < steps - 1:
                assert (covered[missing] == 0).all()
                assert len(missing) < frames
                assert not len(missing) or missing[-1] < frames or missing[0] >= count - frames
            else:
                assert not len(missing)


@pytest.mark.parametrize("count", [12, 20, 32, 40])
def test_no_end_of_a_block_is_left_out_at_two_steps_running(count):
    missing = []
    for step in range(10):
        covered = np.zeros(count)
        for window in windows_at("shifted", count, 8, step, 10):
            covered[window.frames] += window.weights
        missing.append(covered == 0)
    assert any(one.any() for one in missing)
    for before, after in itertools.pairwise(missing):
        assert not (before & after).any()


@pytest.mark.parametrize("frames", [2, 5, 8, 25])
def test_shifted_windows_make_no_more_calls_than_chunks(frames):
    for count, step in itertools.product(COUNTS, range(8)):
        shifted, chunks = (len(windows_at(strategy, count, frames, step, 8)) for strategy in ("shifted", "chunks"))
        assert shifted <= chunks == math.ceil(count / frames)


def test_the_cuts_of_shifted_windows_move_at_every_step():
    starts = [[int(w.frames[0]) for w in windows_at("shifted", 32, 8, step, 4)] for step in range(4)]
    assert starts == [[6, 14, 22, 24], [0, 2, 10, 18], [4, 12, 20, 24], [0, 8, 16, 24]]


def test_dilated_windows_look_twice_as_far_in_the_first_steps():
    first, last = (windows_at("dilated", 16, 8, step, 5) for step in (0, 4))
    assert [w.frames.tolist() for w in first] == [list(range(0, 16, 2)), list(range(1, 16, 2))]
    assert [w.frames.tolist() for w in last] == [list(range(8)), list(range(8, 16))]


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


@pytest.mark.parametrize("frames", [2, 5, 8, 25])
def test_windows_of_a_stream_end_at_the_newest_frame_and_look_twice_as_far_at_first(frames):
    for count in range(1, frames + 1):
        (window,) = newest_windows(count, frames, 0, 6)
        assert window.frames.tolist() == list(range(count))
    for step in range(6):
        windows = newest_windows(2 * frames, frames, step, 6)
        decided = np.concatenate([window.frames for window in windows])
        apart = {int(gap) for window in windows for gap in np.diff(window.frames)}
        assert sorted(decided) == list(range(0 if step < 3 else frames, 2 * frames))
        assert apart == ({2} if step < 3 else {1})
        assert all(len(window.frames) == frames and (window.weights == 1).all() for window in windows)
