from dataclasses import replace

import numpy as np
import pytest

import amodal
from amodal.runtime.clips.gate import JUDGEMENTS
from amodal.runtime.clips.source import ArraySource
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.block_settings import BlockRequest
from amodal.runtime.families.diffusion_vas.blocks import complete_blocks, segment_blocks
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.scenes import make_scene

STEPS = {"steps": 2}


@pytest.fixture(scope="module")
def scene():
    return make_scene(3, 20, pace=8)


def equal(one, other):
    np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_array_equal(one.frames, other.frames)


def test_objects_of_a_short_clip_are_those_of_segment_and_complete_bit_for_bit(model, scene):
    modal, depth, rgb = scene.modal[:8], scene.depth[:8], scene.frames[:8]
    alone = model.segment(modal, depth=depth, **STEPS)
    seen = model.segment_objects({"a": modal, 7: modal[:, :, ::-1], "b": modal}, depth=depth, **STEPS)
    assert list(seen) == ["a", 7, "b"]
    for name in ("a", "b"):
        equal(seen[name], alone)
        np.testing.assert_array_equal(seen[name].masks_full, alone.masks_full)
    whole = model.complete(rgb, modal, alone.masks, seed=alone.noise, **STEPS)
    drawn = model.complete_objects(rgb, {7: modal[:, :, ::-1], "a": modal}, seen, seed=seen.noise, **STEPS)
    np.testing.assert_array_equal(drawn["a"].frames, whole.frames)
    np.testing.assert_array_equal(drawn["a"].known, whole.known)
    np.testing.assert_array_equal(drawn["a"].frames_full, whole.frames_full)


def test_a_clip_of_fewer_frames_than_the_bundles_is_padded_as_segment_does(model, scene):
    alone = model.segment(scene.modal[:5], depth=scene.depth[:5], **STEPS)
    equal(model.segment_objects([(1, scene.modal[:5])], depth=scene.depth[:5], **STEPS)[1], alone)


@pytest.mark.slow
@pytest.mark.parametrize("windows", ["shifted", "blended", "joint", "dilated", "chunks"])
def test_an_object_of_a_long_clip_is_the_same_whatever_the_others(model, scene, windows):
    other = np.roll(scene.modal, 30, axis=2)
    more = {"depth": scene.depth, "windows": windows, "block_frames": 16, **STEPS}
    alone = model.segment_objects({1: scene.modal}, **more)
    both = model.segment_objects({2: other, 1: scene.modal}, **more)
    in_turn = model.segment_objects({2: other, 1: scene.modal}, objects_at_once=1, **more)
    equal(alone[1], both[1])
    equal(alone[1], in_turn[1])
    equal(both[2], in_turn[2])
    assert alone[1].masks.shape == (20, 64, 128)
    assert (alone[1].masks >= scene.modal).all()


@pytest.mark.slow
def test_segment_and_complete_take_long_clips(model, scene):
    seen = model.segment(scene.modal, depth=scene.depth, **STEPS)
    equal(seen, model.segment_objects({0: scene.modal}, depth=scene.depth, **STEPS)[0])
    whole = model.complete(scene.frames, scene.modal, seen.masks, seed=seen.noise, **STEPS)
    assert whole.frames.shape == (20, 64, 128, 3)
    np.testing.assert_array_equal(whole.frames[scene.modal], scene.frames[scene.modal])  # propagated: kept
    assert whole.known[scene.modal].all()


def test_a_gate_is_one_or_none(model, scene):
    with pytest.raises(InputError, match="gate 'auto': expected"):
        model.segment_objects({1: scene.modal}, depth=scene.depth, gate="auto", **STEPS)


def test_with_a_gate_frames_of_which_nothing_is_hidden_are_what_is_seen(model):
    scene = make_scene(500_000, 20, pace=8)
    seen = model.segment_objects({1: scene.modal}, depth=scene.depth, gate=amodal.Gate(), **STEPS)
    skipped = seen.judged[1] >= JUDGEMENTS.index("open")
    assert 0 < skipped.sum() < 20
    np.testing.assert_array_equal(seen[1].masks[skipped], scene.modal[skipped])
    assert (seen[1].masks[~skipped].sum(axis=(1, 2)) > scene.modal[~skipped].sum(axis=(1, 2))).any()


def test_nothing_is_run_for_an_object_that_needs_no_network(model):
    modal = np.zeros((20, 64, 128), bool)
    modal[:, 20:40, 30:60] = True
    called = []
    seen = model.segment_objects(
        {1: modal, 2: modal & False},
        depth=np.where(modal, 0.5, 0.1),
        gate=amodal.Gate(),
        progress=lambda *what: called.append(what),
        **STEPS,
    )
    np.testing.assert_array_equal(seen[1].masks, modal)
    assert seen.empty == (2,)
    assert not seen[2].masks.any()
    assert called == []


def test_a_frame_in_which_nothing_is_seen_for_long_gets_nothing(model, scene):
    modal = scene.modal.copy()
    modal[:12] = False
    masks = model.segment(modal, depth=scene.depth, windows="chunks", **STEPS).masks
    assert not masks[:8].any()
    assert masks[16:].any()


def blocks_of(model, scene, carry=None, **more):
    source = ArraySource({1: scene.modal, 2: np.roll(scene.modal, 40, axis=2)}, scene.frames, scene.depth)
    request = BlockRequest(Settings(steps=2), block_frames=16, **more)
    return segment_blocks(model.session, source, request, carry), source, request


@pytest.mark.slow
@pytest.mark.parametrize("windows", ["shifted", "blended"])
def test_a_run_that_goes_on_after_any_block_is_the_one_that_never_stopped(model, windows):
    scene = make_scene(4, 40, pace=8)
    blocks, source, request = blocks_of(model, scene, windows=windows, gate=amodal.Gate())
    whole = list(blocks)
    assert whole[0].start == 0
    assert [block.stop for block in whole[:-1]] == [block.start for block in whole[1:]]
    assert whole[-1].stop == 40
    assert len(whole) > 2
    for block in whole[:2]:
        for again, first in zip(
            segment_blocks(model.session, source, request, block.carry), whole[block.carry.block :], strict=True
        ):
            assert (again.start, again.stop) == (first.start, first.stop)
            for object_id in source.objects:
                np.testing.assert_array_equal(again.frames[object_id], first.frames[object_id])
                np.testing.assert_array_equal(again.masks[object_id], first.masks[object_id])
                np.testing.assert_array_equal(again.judged[object_id], first.judged[object_id])

    masks = {o: np.concatenate([block.masks[o] for block in whole]) for o in source.objects}

    def amodal_of(object_id, numbers):
        return masks[object_id][numbers.start : numbers.stop]

    completed = list(complete_blocks(model.session, source, amodal_of, request))
    resumed = list(complete_blocks(model.session, source, amodal_of, request, completed[0].carry))
    for again, first in zip(resumed, completed[1:], strict=True):
        for object_id in source.objects:
            np.testing.assert_array_equal(again.frames[object_id], first.frames[object_id])
            np.testing.assert_array_equal(again.known[object_id], first.known[object_id])


@pytest.mark.slow
def test_frames_of_an_overlap_lie_between_those_of_both_blocks(model):
    scene = make_scene(4, 20, pace=8)
    source = ArraySource({1: scene.modal}, scene.frames, scene.depth)
    request = BlockRequest(Settings(steps=2), windows="chunks", block_frames=8)
    first, second = segment_blocks(model.session, source, request)
    carried = first.carry.frames[0]
    assert len(carried) == first.carry.drawn.shape[1] >= 4
    blended = second.frames[1][: len(carried)].astype(np.float32)
    shares = np.arange(1, len(carried) + 1) / (len(carried) + 1)
    alone = next(segment_blocks(model.session, source, request, replace(first.carry, drawn=first.carry.drawn & False)))
    expected = (1 - shares)[:, None, None, None] * carried + shares[:, None, None, None] * alone.frames[1][
        : len(carried)
    ].astype(np.float32)
    np.testing.assert_allclose(blended, expected, atol=0.51)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({}, "there are no objects"),
        ([(1, np.ones((9, 64, 128), bool)), (1, np.ones((9, 64, 128), bool))], "object 1 is named twice"),
        ({1: np.ones((9, 64, 128), bool), 2: np.ones((8, 64, 128), bool)}, r"object 2 has masks \[8, 64, 128\]"),
        (np.ones((9, 64, 128), bool), r"an array \[9, 64, 128\]; expected masks by object"),
        ({1: np.ones((64, 128), bool)}, r"object 1 has masks \[64, 128\]"),
    ],
)
def test_objects_that_do_not_fit_are_refused(model, objects, message):
    with pytest.raises(InputError, match=message):
        model.segment_objects(objects, depth=np.zeros((9, 64, 128)), depth_kind="relative", **STEPS)


def test_what_only_short_clips_have_is_refused_for_long_ones(model, scene):
    with pytest.raises(InputError, match="`samples` is for clips of at most"):
        model.segment(scene.modal, depth=scene.depth, samples=2, **STEPS)
    with pytest.raises(InputError, match="windows 'wide' are unknown"):
        model.segment(scene.modal, depth=scene.depth, windows="wide", **STEPS)
    with pytest.raises(InputError, match="depth has 19 frames, the masks have 20"):
        model.segment(scene.modal, depth=scene.depth[:19], **STEPS)
    with pytest.raises(InputError, match="0 objects at once"):
        model.segment_objects({1: scene.modal}, depth=scene.depth, objects_at_once=0, **STEPS)
