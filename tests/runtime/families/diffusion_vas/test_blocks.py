"""Runs of several blocks: resuming, windows in turn, bounded reading."""

import itertools

import numpy as np
import pytest

import amodal
from amodal.runtime.clips.source import ArraySource
from amodal.runtime.clips.windows import cut_blocks
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas import block_inputs
from amodal.runtime.families.diffusion_vas.block_inputs import Depth, Kept
from amodal.runtime.families.diffusion_vas.block_settings import BlockRequest
from amodal.runtime.families.diffusion_vas.blocks import complete_blocks, segment_blocks
from amodal.runtime.families.diffusion_vas.one_window import WindowRun
from amodal.runtime.families.diffusion_vas.settings import PRESETS, Settings
from amodal.runtime.pictures.images import prepare_depth, prepare_modal
from amodal.runtime.scenes import make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(500_000, 30, pace=8)


def source_of(scene):
    return ArraySource({1: scene.modal, "b": np.roll(scene.modal, 20, axis=2)}, scene.frames, scene.depth)


def assert_equal(one, other, names):
    assert (one.number, one.start, one.stop) == (other.number, other.start, other.stop)
    for name in names:
        for object_id, array in getattr(one, name).items():
            np.testing.assert_array_equal(array, getattr(other, name)[object_id], err_msg=f"{name} {object_id}")
    for name in ("frames", "drawn", "judged"):
        np.testing.assert_array_equal(getattr(one.carry, name), getattr(other.carry, name))


@pytest.mark.slow
def test_a_run_that_goes_on_from_any_block_gives_the_same_bits(model, scene):
    request = BlockRequest(Settings(steps=2), block_frames=16, gate=amodal.Gate())
    blocks = list(segment_blocks(model.session, source_of(scene), request))
    assert [(b.start, b.stop) for b in blocks] == [(0, 7), (7, 14), (14, 30)]
    whole = {o: np.concatenate([b.masks[o] for b in blocks]) for o in blocks[0].masks}
    for before, after in itertools.pairwise(blocks):
        again = next(segment_blocks(model.session, source_of(scene), request, before.carry))
        assert_equal(again, after, ["masks", "frames", "drawn", "judged"])

    def amodal_of(object_id, numbers):
        return whole[object_id][numbers.start : numbers.stop]

    request = BlockRequest(Settings(steps=2), blocks[-1].noise, block_frames=16, propagate=True)
    drawn = list(complete_blocks(model.session, source_of(scene), amodal_of, request))
    for before, after in itertools.pairwise(drawn):
        again = next(complete_blocks(model.session, source_of(scene), amodal_of, request, before.carry))
        assert_equal(again, after, ["frames", "drawn", "known"])


def test_a_window_of_a_stream_is_what_the_blocks_of_a_clip_draw(model, scene):
    """A clip of one window whose noise is by frame, in which depth is prepared alike."""
    modal, depth = scene.modal[:8], scene.depth[:8]
    request = BlockRequest(Settings(steps=2), amodal_noise := model_noise(5))
    block = next(segment_blocks(model.session, ArraySource({1: modal}, depth=depth), request))
    run = WindowRun(model.session, Settings(steps=6), amodal_noise)
    prepared = {1: prepare_modal(modal, (64, 128)), 2: np.full((8, 64, 128), -1, np.float32)}
    drawn = run(prepared, prepare_depth(depth, (64, 128)), range(8), 2)
    np.testing.assert_array_equal(drawn[1], block.frames[1])
    assert not drawn[2].any()


def model_noise(seed):
    from amodal.runtime.clips.noise import FrameNoise

    return FrameNoise.of(seed)


def test_a_short_window_repeats_its_last_frame(model, scene):
    run = WindowRun(model.session, Settings(steps=2))
    modal, depth = prepare_modal(scene.modal[:8], (64, 128)), prepare_depth(scene.depth[:8], (64, 128))
    at = [0, 1, 2, 3, 4, 4, 4, 4]
    long, short = run({1: modal[at]}, depth[at], range(3, 11), 2), run({1: modal[:5]}, depth[:5], range(3, 8), 2)
    np.testing.assert_array_equal(long[1][:5], short[1])
    with pytest.raises(InputError, match=r"a window of frames range\(0, 9\) has arrays of 5 and 8 frames"):
        run({1: modal}, depth[:5], range(9), 2)


def test_depth_that_was_computed_is_not_computed_again(model, scene, tmp_path, monkeypatch):
    asked = []

    def computed(session, source, channels, numbers):
        asked.extend(numbers)
        return scene.depth[numbers.start : numbers.stop]

    monkeypatch.setattr(block_inputs, "_computed", computed)
    source, path = ArraySource({1: scene.modal}, scene.frames), tmp_path / "depth"
    first = Depth(model.session, source, None, path=path)
    whole, known = first.read(0, 30), first.range
    first.close()
    assert asked == list(range(30))
    again = Depth(model.session, source, None, known, path)
    np.testing.assert_array_equal(again.read(8, 30), whole[8:])
    again.close()
    assert asked == list(range(30))
    path.write_bytes(path.read_bytes()[:-4])  # an earlier run was killed while it computed
    Depth(model.session, source, None, known, path).close()
    assert asked == [*range(30)] * 2


def test_frames_are_read_once_and_forgotten():
    read = []

    def of(numbers):
        read.extend(numbers)
        return np.array([numbers, numbers])

    kept = Kept(of, axis=1)
    for start, stop in [(4, 24), (4, 20), (20, 30), (28, 70), (90, 95)]:
        np.testing.assert_array_equal(kept(start, stop), np.array([range(start, stop)] * 2))
    assert read == [*range(4, 70), *range(90, 95)]


def test_blocks_of_a_clip_little_longer_than_one_share_its_frames_evenly():
    assert [(b.start, b.stop) for b in cut_blocks(129, 8, "shifted")] == [(0, 72), (57, 129)]


def test_presets_are_numbers_of_steps():
    assert PRESETS == {"exact": 25, "balanced": 10, "fast": 6}
