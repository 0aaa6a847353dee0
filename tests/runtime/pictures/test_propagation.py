"""Motion of an object between frames, and what is carried over along it, on pictures drawn from formulas."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import amodal
from amodal.runtime.errors import InputError
from amodal.runtime.pictures.images import prepare_modal, prepare_rgb, to_bytes
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.pictures.propagation import SourceFrames, propagate
from amodal.runtime.pictures.registration import object_frames, register

HEIGHT, WIDTH = 72, 120
MIDDLE = np.array([40.0, 34.0])


def motion(turn: float = 0, scale: float = 1, shear: float = 0, x: float = 0, y: float = 0) -> Any:
    """Degrees and pixels, about MIDDLE, [3, 3]."""
    a = np.deg2rad(turn)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ [[1, shear], [0, 1]]
    found = np.eye(3)
    found[:2, :2], found[:2, 2] = linear, MIDDLE + np.array([x, y]) - linear @ MIDDLE
    return found


def drawn(moved: Any, plain: bool = False) -> tuple[Any, Any]:
    """A disc with a bump and colours of its own, moved: uint8 [H, W, 3] on grey, and its mask."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    places = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
    x, y = (np.linalg.inv(moved) @ places)[:2].reshape(2, HEIGHT, WIDTH) - MIDDLE[:, None, None]
    mask = (np.hypot(x, y) < 19) | (np.hypot((x - 14) / 2, y - 8) < 6)
    colours = [np.sin(x / 4 + k) * np.cos(y / 5 - k) for k in range(3)]
    picture = 128 + (0 if plain else 90) * np.stack(colours, axis=-1)
    return np.where(mask[..., None], np.rint(picture), 60).astype(np.uint8), mask


def clip(*motions: Any, plain: bool = False) -> tuple[Any, Any]:
    pictures, masks = zip(*(drawn(moved, plain) for moved in motions), strict=True)
    return np.stack(pictures), np.stack(masks)


def apart(found: Any, wanted: Any, mask: Any) -> float:
    """The farthest that two motions take a pixel of an object apart."""
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows, np.ones(len(rows))])
    return float(np.hypot(*((found - wanted) @ points)[:2]).max())


def registered(rgb: Any, modal: Any, amodal: Any) -> tuple[Any, Any]:
    """The motion from the first frame to the second, and back."""
    first, second = object_frames(rgb, modal, amodal)
    assert first is not None
    assert second is not None
    return register(first, second), register(second, first)


MOTIONS: dict[str, dict[str, float]] = {
    "none": {},
    "shift": {"x": 31.5, "y": -8.25},
    "turn": {"turn": 25, "x": 12},
    "scale": {"scale": 1.3},
    "shear": {"shear": 0.2, "turn": -10},
    "all": {"turn": 15, "scale": 0.8, "shear": -0.1, "x": 25, "y": 6},
}


@pytest.mark.parametrize("name", MOTIONS)
def test_the_motion_of_what_is_seen_is_found(name: str) -> None:
    moved = motion(**MOTIONS[name])
    rgb, masks = clip(np.eye(3), moved)
    there, back = registered(rgb, masks, masks)
    assert apart(there, moved, masks[0]) < 0.5
    assert apart(back, np.linalg.inv(moved), masks[1]) < 0.5


def test_the_motion_is_found_behind_an_occluder_that_does_not_move_with_it() -> None:
    moved = motion(turn=12, x=9, y=4)
    rgb, masks = clip(np.eye(3), moved)
    rgb[0][:, 44:], rgb[1][:30] = 250, 5
    modal = masks.copy()
    modal[0][:, 44:] = modal[1][:30] = False
    there, _ = registered(rgb, modal, masks)
    assert apart(there, moved, masks[0]) < 0.7


def test_without_texture_the_outline_tells() -> None:
    moved = motion(turn=20, x=15)
    rgb, masks = clip(np.eye(3), moved, plain=True)
    there, _ = registered(rgb, masks, masks)
    assert apart(there, moved, masks[0]) < 1.5


def test_a_large_object_is_placed_to_a_fraction_of_a_pixel() -> None:
    """Only some of its points are looked at, the first time blurred by several pixels."""
    rows, columns = np.mgrid[:360, :480]

    def wave(x: Any, y: Any) -> Any:
        return np.stack([128 + 90 * np.sin(x / (9 + k)) * np.cos(y / 11) for k in range(3)], axis=-1)

    pictures = [wave(columns, rows), wave(columns - 17.4, rows - 5.7)]
    masks = np.stack([np.hypot(columns - 200 - x, rows - 160 - y) < 110 for x, y in ((0, 0), (17.4, 5.7))])
    there, _ = registered(np.rint(pictures).astype(np.uint8), masks, masks)
    wanted = np.eye(3)
    wanted[:2, 2] = 17.4, 5.7
    assert apart(there, wanted, masks[0]) < 0.2


def test_where_no_motion_fits_the_centres_are_laid_on_one_another() -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.stack([np.hypot(columns - x, rows - 36) < radius for x, radius in ((60, 34), (30, 4), (80, 8))])
    rgb = np.full((*masks.shape, 3), 90, np.uint8)
    large, small, other = object_frames(rgb, masks, masks)
    assert large is not None
    assert small is not None
    assert other is not None
    np.testing.assert_allclose(register(large, small), [[1, 0, -30], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    linear = register(small, other)[:2, :2]
    assert 1.5 < np.sqrt(np.linalg.det(linear)) < 2.5, "four times the area is plausible"


def test_hidden_pixels_are_what_another_frame_shows() -> None:
    rgb, masks = clip(np.eye(3), motion(turn=10, x=6), motion(turn=20, x=12, y=3))
    given, modal = rgb.copy(), masks.copy()
    given[1][:, 40:60], modal[1][:, 40:60] = 255, False
    shown = propagate(given, modal, masks)
    carried = shown.known & ~modal
    hidden = masks & ~modal
    assert carried[hidden].mean() > 0.97
    assert not (carried & ~hidden).any()
    np.testing.assert_array_equal(shown.rgb[~carried], given[~carried])
    error = shown.rgb[carried].astype(float) - rgb[carried]
    assert np.sqrt(np.square(error).mean()) < 8  # of +-90; the mean colour has 45
    np.testing.assert_array_equal(given[1][:, 40:60], 255)  # the input is left as it was


def test_an_object_that_does_not_move_is_carried_over_exactly() -> None:
    rgb, masks = clip(np.eye(3), np.eye(3), np.eye(3))
    given, modal = rgb.copy(), masks.copy()
    given[1][30:40], modal[1][30:40] = 0, False
    shown = propagate(given, modal, masks)
    np.testing.assert_array_equal(shown.known, masks)
    assert np.abs(shown.rgb.astype(int) - rgb)[masks].max() <= 1


def test_frames_that_agree_better_count_for_more() -> None:
    """The same place, twice, with different colours where it is hidden in between; weights from the definition."""
    rgb, masks = clip(np.eye(3), np.eye(3), np.eye(3))
    given, modal = rgb.astype(int), masks.copy()
    seen = masks[0] & (np.arange(HEIGHT)[:, None] < 30)
    hidden = masks[0] & ~seen
    modal[1] = seen
    noise = np.random.default_rng(0).normal(0, 30, given[2].shape)
    given[2] = np.where(seen[..., None], given[2] + noise, given[2] + 40)
    given[0] = np.where(hidden[..., None], given[0] - 20, given[0])
    given = np.clip(given, 0, 255).astype(np.uint8)
    shown = propagate(given, modal, masks)
    errors = [np.square(given[s][seen].astype(float) - given[1][seen]).mean() for s in (0, 2)]
    weights = [(error + 100) ** -2 for error in errors]
    wanted = sum(w * given[s].astype(float) for w, s in zip(weights, (0, 2), strict=True)) / sum(weights)
    inner = hidden & (np.arange(HEIGHT)[:, None] > 34)
    assert np.abs(shown.rgb[1][inner] - wanted[inner]).mean() < 4


def test_nearer_frames_count_for_more_where_nothing_is_visible() -> None:
    _, masks = clip(*4 * [np.eye(3)])
    rgb = np.zeros((*masks.shape, 3), np.uint8)
    for t, level in enumerate((100, 0, 100, 200)):
        rgb[t][masks[t]] = level
    modal = masks.copy()
    modal[1] = False
    near, far = (3000.0 + 100) ** -2, (6000.0 + 100) ** -2
    wanted = (2 * near * 100 + far * 200) / (2 * near + far)
    inner = cv2.erode(masks[1].astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(propagate(rgb, modal, masks).rgb[1][inner] - wanted).max() <= 1


@pytest.mark.parametrize("seed", range(12))
def test_an_object_of_a_pixel_or_two_is_carried_over_or_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (3, 40, 60, 3), np.uint8)
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 7, 7 : 8 + seed % 2] = masks[1, 4:8, 4:8] = masks[2, 20:26, 30:36] = True
    modal = masks.copy()
    modal[0] = False
    shown = propagate(rgb, modal, masks)
    assert not (shown.known & ~masks).any()
    np.testing.assert_array_equal(shown.rgb[~shown.known], rgb[~shown.known])


def test_frames_that_say_less_than_the_mean_colour_are_left_out() -> None:
    _, masks = clip(np.eye(3), np.eye(3))
    rgb = np.random.default_rng(1).integers(0, 256, (*masks.shape, 3), np.uint8)
    modal = masks.copy()
    modal[1][40:] = False
    np.testing.assert_array_equal(propagate(rgb, modal, masks).known, modal)


def test_an_object_never_seen_whole_stays_in_part_unknown() -> None:
    rgb, masks = clip(np.eye(3), motion(x=5), motion(x=10))
    modal = masks.copy()
    for t, left in enumerate((40, 45, 50)):
        modal[t][:, left:] = False
    shown = propagate(rgb, modal, masks)
    for t, left in enumerate((40, 45, 50)):
        assert not shown.known[t][:, left + 2 :].any()


@pytest.mark.parametrize("case", ["one frame", "nothing visible", "fills the frame", "leaves", "one pixel"])
def test_what_cannot_be_carried_over_is_left(case: str) -> None:
    rgb, masks = clip(np.eye(3), motion(x=8), motion(x=16))
    modal = masks.copy()
    if case == "one frame":
        rgb, masks, modal = rgb[:1], masks[:1], modal[:1] & (np.arange(WIDTH) < 40)
    elif case == "nothing visible":
        modal[:] = False
    elif case == "fills the frame":
        masks[:] = True
        modal[:] = False
    elif case == "leaves":
        modal[1] = masks[1] = False
    else:
        masks[:] = False
        masks[:, 5, 5] = True
        modal = masks & (np.arange(3) > 0)[:, None, None]
    shown = propagate(rgb, modal, masks)
    np.testing.assert_array_equal(shown.known, modal)
    np.testing.assert_array_equal(shown.rgb, rgb)


# Long clips.


def long_clip(count: int) -> tuple[Any, Any, Any]:
    """An object that turns and moves, empty in one frame and gone behind a bar in another: pictures, visible, whole."""
    rgb, masks = clip(*(motion(turn=5 * t, x=3 * t - 20, y=t % 3) for t in range(count)))
    masks[4] = False
    modal = masks.copy()
    for t in range(count):
        modal[t][:, 20 + 4 * t : 38 + 4 * t] = False
    modal[7] = False
    return np.where(masks & ~modal, np.uint8(255), rgb.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0), modal, masks


def filled_by_definition(rgb: Any, modal: Any, masks: Any, allowed: Any) -> tuple[Any, Any]:
    """What `propagate` documents, pixel by pixel at the frame's size, from the sources that `allowed` [t] names."""
    objects, filled, known = object_frames(rgb, modal, masks), rgb.copy(), modal.copy()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for t in range(len(rgb)):
        hidden = masks[t] & ~modal[t]
        total, weights = np.zeros((HEIGHT, WIDTH, 3)), np.zeros((HEIGHT, WIDTH))
        for s in allowed[t] if hidden.any() else ():
            target, source = objects[t], objects[s]
            assert target is not None
            assert source is not None
            found = register(target, source)
            x, y = ((found[i, 0] * columns + found[i, 1] * rows + found[i, 2]).astype(np.float32) for i in (0, 1))
            shown = (modal[s] * 255).astype(np.uint8)
            share = cv2.remap(shown, x, y, cv2.INTER_LINEAR) / 255
            colours = (
                cv2.remap(rgb[s] * modal[s][..., None], x, y, cv2.INTER_LINEAR) / np.maximum(share, 0.7)[..., None]
            )
            both = (share > 0.7) & modal[t]
            error = 3000.0 * abs(s - t)
            if both.sum() >= 10:
                error = np.square(colours[both] - rgb[t][both]).mean()
                if error > max(rgb[t][both].astype(float).var(axis=0).mean(), 100):
                    continue
            weight = ((share > 0.7) & hidden) / (error + 100) ** 2
            total, weights = total + colours * weight[..., None], weights + weight
        there = weights > 0
        filled[t][there] = np.rint(total[there] / weights[there][:, None])
        known[t] |= there
    return filled, known


def near_and_spread(modal: Any, reach: int, most: int) -> list[list[int]]:
    """Half of the sources are the nearest, the others are the least, a middle one and so on of the rest, evenly."""
    found = []
    for t in range(len(modal)):
        able = [s for s in range(len(modal)) if modal[s].sum() >= 10 and 0 < abs(s - t) <= reach]
        near = sorted(able, key=lambda s: (abs(s - t), s))[: most if len(able) <= most else -(-most // 2)]
        rest = [s for s in able if s not in near]
        picks = most - len(near) if rest else 0
        found.append(near + [rest[round(i * (len(rest) - 1) / max(picks - 1, 1))] for i in range(picks)])
    return found


@pytest.mark.parametrize(("reach", "most"), [(12, 12), (12, 3), (12, 6), (2, 12), (4, 2)])
def test_each_frame_of_a_long_clip_is_filled_from_near_frames_and_some_within_reach(reach: int, most: int) -> None:
    rgb, modal, masks = long_clip(12)
    sources = SourceFrames(12, reach, most)
    sources.add(0, rgb, modal, masks)
    shown = sources.fill(0, rgb, modal, masks)
    wanted, known = filled_by_definition(rgb, modal, masks, near_and_spread(modal, reach, most))
    assert (shown.known & ~modal).sum() > 100
    np.testing.assert_array_equal(shown.known, known)
    assert np.abs(shown.rgb.astype(int) - wanted).max() <= 1  # float32 against float64


def test_all_frames_in_one_stretch_are_filled_as_one_clip() -> None:
    rgb, modal, masks = long_clip(9)
    sources = SourceFrames(9)
    sources.add(0, rgb, modal, masks)
    shown, wanted = sources.fill(0, rgb, modal, masks), propagate(rgb, modal, masks)
    np.testing.assert_array_equal(shown.rgb, wanted.rgb)
    np.testing.assert_array_equal(shown.known, wanted.known)


def in_stretches(arrays: Any, stretches: Any, reach: int) -> tuple[list[Any], list[range]]:
    sources, asked, found = SourceFrames(len(arrays[0]), reach), [], []
    for stretch in stretches:
        needed = sources.missing(stretch)
        asked.append(needed)
        sources.add(needed.start, *(array[needed.start : needed.stop] for array in arrays))
        assert not sources.missing(stretch)
        found.append(sources.fill(stretch.start, *(array[stretch.start : stretch.stop] for array in arrays)))
    return found, asked


def test_a_stretch_is_filled_alike_whatever_came_before_it() -> None:
    arrays = long_clip(14)
    stretches = [range(6), range(4, 10), range(8, 14)]
    found, asked = in_stretches(arrays, stretches, 3)
    assert asked == [range(9), range(9, 13), range(13, 14)], "no frame is read twice"
    for stretch, wanted in zip(stretches, found, strict=True):
        (alone,), _ = in_stretches(arrays, [stretch], 3)
        np.testing.assert_array_equal(alone.rgb, wanted.rgb)
        np.testing.assert_array_equal(alone.known, wanted.known)
    assert (found[0].known[5] != in_stretches(arrays, [range(6)], 1)[0][0].known[5]).any(), "reach matters here"


def test_of_a_long_clip_only_boxes_around_the_object_within_reach_are_held() -> None:
    rgb, modal, masks = long_clip(14)
    sources = SourceFrames(1000, reach=5)
    peak = 0
    for start in range(0, 980, 10):
        needed = sources.missing(range(start, start + 10))
        for number in needed:
            sources.add(number, rgb[number % 14][None], modal[number % 14][None], masks[number % 14][None])
        few = range(start % 14, start % 14 + 1)
        sources.fill(start, *(np.repeat(array[few.start][None], 10, axis=0) for array in (rgb, masks, masks)))
        held = [kept for kept in sources._kept.values() if kept is not None]
        peak = max(peak, sum(kept.visible.nbytes + kept.whole.nbytes for kept in held))
    assert 0 < peak <= 20 * 5 * int(masks.any(axis=0).sum())


# Within a run.


@pytest.fixture(scope="module")
def toy(toy_bundle: Path) -> Any:
    with amodal.load(toy_bundle, threads=1) as model:
        yield model


def given(height: int = 64, width: int = 64) -> dict[str, Any]:
    """An object that stands still on texture, hidden on the right in one frame and below in another."""
    rng = np.random.default_rng(5)
    frames = np.repeat(rng.integers(0, 256, (1, height, width, 3), np.uint8), 3, axis=0)
    masks = np.zeros((3, height, width), bool)
    masks[:, height // 4 : height // 2, width // 4 : width // 2] = True
    modal = masks.copy()
    modal[1][:, 3 * width // 8 :] = False
    modal[2][3 * height // 8 :] = False
    frames[1][:, 3 * width // 8 :] = 10
    return {"rgb": frames, "modal": modal, "amodal": masks}


def test_a_run_draws_only_what_the_clip_does_not_show(toy: amodal.Model) -> None:
    clip = given()
    clip["modal"][:, 16:20] = False  # hidden throughout
    whole = toy.complete(**clip, steps=2, propagate=True)
    shown = propagate(clip["rgb"], clip["modal"], clip["amodal"])
    assert 0 < (shown.known & ~clip["modal"]).sum() < (clip["amodal"] & ~clip["modal"]).sum()
    np.testing.assert_array_equal(whole.known, shown.known)
    np.testing.assert_array_equal(whole.frames[shown.known], shown.rgb[shown.known])
    # The rest is what the network makes of them.
    drawn = toy.complete(shown.rgb, shown.known, clip["amodal"], steps=2, propagate=False)
    np.testing.assert_array_equal(whole.frames[~shown.known], drawn.frames[~shown.known])
    assert 0 < whole.timings["propagation"] < whole.seconds
    plain = toy.complete(**clip, steps=2)
    assert plain.known is None
    assert "propagation" not in plain.timings
    assert (plain.frames != whole.frames).any()


def test_other_sizes_padding_and_prepared_frames_are_propagated_at_the_bundles_size(toy: amodal.Model) -> None:
    clip = given(96, 128)
    whole = toy.complete(**clip, steps=1, propagate=True)
    assert whole.known is not None
    assert whole.known.shape == (3, 64, 64)
    assert whole.frames_full.shape == (3, 96, 128, 3)
    prepared = {
        "rgb": prepare_rgb(clip["rgb"], (64, 64)),
        "modal": prepare_modal(clip["modal"], (64, 64)),
        "amodal": clip["amodal"],
    }
    again = toy.complete(**prepared, steps=1, propagate=True)
    np.testing.assert_array_equal(again.frames, whole.frames)
    seen = whole.known & (prepared["modal"] > 0)
    np.testing.assert_array_equal(whole.frames[seen], to_bytes(prepared["rgb"])[seen])
    padded = toy.complete(**clip, steps=1, propagate=True, padding=Padding(96, 128))
    assert padded.known is not None
    assert 0 < padded.known.sum() < whole.known.sum()


def test_what_is_known_can_be_written_into_a_buffer_of_the_callers(toy: amodal.Model) -> None:
    clip, known = given(), np.zeros((3, 64, 64), bool)
    whole = toy.complete(**clip, steps=1, propagate=True, out={"known": known})
    assert whole.known is known
    assert known.any()
    with pytest.raises(InputError, match="out: there is no result 'known'"):
        toy.complete(**clip, steps=1, out={"known": known})


def test_a_clip_on_the_device_is_propagated_like_one_on_the_host(on_gpu: amodal.Model) -> None:
    clip, cupy = given(), on_gpu.backend.xp
    whole = on_gpu.complete(**clip, steps=1, propagate=True)
    there = {name: cupy.asarray(array) for name, array in clip.items()}
    drawn: Any = on_gpu.complete(**there, steps=1, propagate=True, to="device")
    assert isinstance(drawn.known, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(drawn.known), whole.known)
    np.testing.assert_array_equal(cupy.asnumpy(drawn.frames), whole.frames)
    shown = propagate(**clip)
    np.testing.assert_array_equal(whole.known, shown.known)
    np.testing.assert_array_equal(whole.frames[shown.known], shown.rgb[shown.known])


def test_the_bundle_says_what_happens_unless_one_is_told(toy_bundle: Path, tmp_path: Path) -> None:
    with amodal.load("default") as model:
        assert model.config.propagate
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    document = json.loads(path.read_text())
    document["config"]["propagate"] = True
    path.write_text(json.dumps(document))
    with amodal.load(tmp_path / "bundle", threads=1) as model:
        assert model.complete(**given(), steps=1).known is not None
        assert model.complete(**given(), steps=1, propagate=False).known is None
