"""What a stream keeps of encoded masks, and that windows which use it draw the same."""

import numpy as np

from amodal.runtime.families.diffusion_vas.block_encoding import Encoded
from amodal.runtime.families.diffusion_vas.encoded_masks import EncodedMasks
from amodal.runtime.families.diffusion_vas.one_window import WindowRun
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.pictures.images import prepare_depth, prepare_modal
from amodal.runtime.scenes import make_scene


def encoded(number):
    return Encoded(np.full(3, number, np.float32), np.full((4, 2, 2), number, np.float32))


def test_masks_are_found_by_frame_and_forgotten_with_it():
    held, modal = EncodedMasks(), np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 2, 2), np.float32)
    held.keep("a", modal, range(10, 14), {0: encoded(10), 2: encoded(12), 3: encoded(13), 5: encoded(99)})
    assert set(held.of("a", modal, range(10, 14))) == {0, 2, 3}
    moved = held.of("a", modal[2:], range(12, 14))
    assert {place: one.embedding[0] for place, one in moved.items()} == {0: 12, 1: 13}
    assert held.of("b", modal, range(10, 14)) == {}
    held.forget(13)
    assert set(held.of("a", modal, range(10, 14))) == {3}
    held.forget(14)
    assert held.of("a", modal, range(10, 14)) == {}


def test_a_mask_that_is_another_one_counts_as_new():
    held, modal = EncodedMasks(), np.full((2, 2, 2), -1, np.float32)
    held.keep(1, modal, range(2), {0: encoded(0), 1: encoded(1)})
    other = modal.copy()
    other[1, 0, 0] = 1
    assert set(held.of(1, other, range(2))) == {0}


def test_a_window_after_another_encodes_what_is_new_and_draws_what_it_draws_alone(model):
    scene = make_scene(500_003, 16, model.config.size)
    modal, depth = prepare_modal(scene.modal, model.config.size), prepare_depth(scene.depth, model.config.size)
    run, alone = (WindowRun(model.session, Settings(steps=2), reach=16) for _ in range(2))
    run({1: modal[:8]}, depth[:8], range(8), 2)
    places = run._encoded.of(1, modal, range(16))
    assert set(places) == set(range(8))
    after, fresh = (each({1: modal}, depth, range(16), 2)[1] for each in (run, alone))
    assert after.shape == (8, *model.config.size, 3)
    # The encoders round differently in calls of other sizes.
    assert np.abs(after.astype(int) - fresh).max() <= 2
