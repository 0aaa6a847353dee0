"""What both stages read, made of what the caller hands over: shapes, the last frame repeated, and what does not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.inputs import GivenDepth, Inputs, complete_inputs, padded, segment_inputs
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.pictures.propagation import Propagated

FRAMES, SIZE = 5, (8, 16)
MANIFEST: Any = SimpleNamespace(frames=FRAMES, size=SIZE)


@pytest.fixture(params=["numpy", "device"])
def backend(request: pytest.FixtureRequest, device: Any) -> Any:
    """The CPU, or the stand-in for a GPU."""
    xp = np if request.param == "numpy" else device
    return SimpleNamespace(xp=xp, to_host=np.asarray if xp is np else xp.asnumpy)


class Ready(list[tuple[int, tuple[int, int]]]):
    """What was said once all had been looked at: frames of the clip, and full size."""

    def __call__(self, count: int, full_size: tuple[int, int]) -> None:
        self.append((count, full_size))


def clip(count: int = 3, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Prepared arrays at the bundle's size, raw ones at any other."""
    rng = np.random.default_rng(4)
    modal = np.zeros((count, *size), bool)
    modal[:, 2 : size[0] // 2, 3 : size[1] // 2] = True
    amodal = modal.copy()
    amodal[:, 2:-2, 3:-3] = True
    return {
        "modal": modal,
        "amodal": amodal,
        "depth": rng.uniform(-1, 1, modal.shape).astype(np.float32),
        "rgb": rng.integers(0, 256, (*modal.shape, 3), np.uint8),
    }


def no_depth(pictures: Any) -> Any:
    raise AssertionError("depth was handed over")


def segment(backend: Any, given: dict[str, Any], find_depth: Any = no_depth, **more: Any) -> Inputs:
    options = {"depth": None, "rgb": None, "padding": None, "ready": Ready(), **given, **more}
    options.pop("amodal", None)
    options["depth"] = GivenDepth(options["depth"], options.pop("depth_kind", None))
    return segment_inputs(MANIFEST, backend, find_depth=find_depth, **options)


def complete(backend: Any, given: dict[str, Any], **more: Any) -> Inputs:
    options = {"padding": None, "propagate": None, "ready": Ready(), **given, **more}
    options.pop("depth", None)
    return complete_inputs(MANIFEST, backend, **options)


def conditions_of(inputs: Inputs, backend: Any) -> list[Any]:
    """Both conditions on the host; they must be the backend's."""
    both = inputs.conditions.take()
    for array in both:
        assert isinstance(array, backend.xp.ndarray)
        assert array.dtype == np.float32
        assert array.shape == (FRAMES, 3, *SIZE)
    return [backend.to_host(array) for array in both]


def signed(masks: Any) -> Any:
    return np.where(masks, np.float32(1), np.float32(-1))


def test_lists_are_read_like_arrays(backend: Any) -> None:
    given = clip()
    lists = {name: given[name].tolist() for name in ("modal", "depth")}
    found, expected = (
        conditions_of(segment(backend, one), backend) for one in (lists, {name: given[name] for name in lists})
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 3, FRAMES])
def test_segmentation_reads_masks_and_depth_three_times_each(count: int, backend: Any) -> None:
    given, ready = clip(count), Ready()
    inputs = segment(backend, {"modal": given["modal"], "depth": given["depth"]}, ready=ready)
    masks, depth = conditions_of(inputs, backend)
    for got, want in ((masks, signed(given["modal"])), (depth, given["depth"])):
        np.testing.assert_array_equal(got[:count], np.repeat(want[:, None], 3, axis=1))
        np.testing.assert_array_equal(got[count:], np.broadcast_to(got[count - 1], got[count:].shape))
    assert (inputs.count, inputs.full_size, ready) == (count, SIZE, [(count, SIZE)])
    assert inputs.raw is None
    assert inputs.propagated is None
    np.testing.assert_array_equal(backend.to_host(inputs.visible), given["modal"])


def test_completion_reads_the_visible_object_on_white_and_the_whole_mask(backend: Any) -> None:
    given, ready = clip(), Ready()
    inputs = complete(backend, given, ready=ready)
    seen, whole = conditions_of(inputs, backend)
    pictures = given["rgb"].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_allclose(seen[:3], np.where(given["modal"][:, None], pictures, 1), atol=1e-6)
    np.testing.assert_array_equal(whole[:3], np.repeat(signed(given["amodal"])[:, None], 3, axis=1))
    for condition in (seen, whole):
        np.testing.assert_array_equal(condition[3:], condition[[2, 2]])
    assert (inputs.count, inputs.full_size, ready) == (3, SIZE, [(3, SIZE)])
    np.testing.assert_array_equal(backend.to_host(inputs.visible), given["modal"])


def test_raw_arrays_of_any_size_come_to_the_bundles_size(backend: Any) -> None:
    given = clip(size=(24, 40))
    for inputs in (
        segment(backend, {"modal": given["modal"], "depth": given["depth"]}),
        complete(backend, given),
    ):
        conditions_of(inputs, backend)
        assert inputs.full_size == (24, 40)
        assert inputs.visible.shape == (3, *SIZE)


def test_prepared_frames_have_their_size_behind_the_channels(backend: Any) -> None:
    given = clip()
    given["rgb"] = given["rgb"].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    assert complete(backend, given).full_size == SIZE


def test_depth_is_computed_from_frames_once_all_was_looked_at(backend: Any) -> None:
    given, ready, computed = clip(), Ready(), []

    def find_depth(pictures: Any) -> Any:
        assert ready == [(3, SIZE)]
        assert pictures.shape == (3, 3, *SIZE)
        computed.append(backend.xp.asarray(given["depth"]))
        return computed[0]

    inputs = segment(backend, {"modal": given["modal"], "rgb": given["rgb"]}, find_depth, ready=ready)
    _, depth = conditions_of(inputs, backend)
    np.testing.assert_array_equal(depth[:3, 0], given["depth"])
    assert len(ready) == 1


def test_depth_that_is_handed_over_is_not_computed(backend: Any) -> None:
    given = clip()
    del given["amodal"]
    _, depth = conditions_of(segment(backend, given), backend)
    np.testing.assert_array_equal(depth[:3, 0], given["depth"])


def test_depth_of_another_kind_becomes_relative(backend: Any) -> None:
    given = clip(size=(24, 40))
    near = np.random.default_rng(1).random(given["modal"].shape, np.float32)
    near[0, 0, :2] = 0, 1
    _, expected = conditions_of(segment(backend, {"modal": given["modal"], "depth": near}), backend)
    for kind, depth in (("metric", 1 / (0.1 + near)), ("inverse", 1 - near), ("relative", near * 40 + 30)):
        arrays = {"modal": given["modal"], "depth": backend.xp.asarray(depth)}
        _, found = conditions_of(segment(backend, arrays, depth_kind=kind), backend)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for arrays in ({"depth": 1 / (0.1 + near)}, {"depth": backend.xp.asarray(1 / (0.1 + near))}):
        with pytest.raises(InputError, match='keep away from 0; say `depth_kind="metric"`'):
            segment(backend, {"modal": given["modal"], **arrays})


def test_filled_depth_is_a_warning_at_the_call(backend: Any) -> None:
    given = clip(size=(24, 40))
    depth = np.full(given["modal"].shape, 2.0, np.float32)
    depth[:, 12:] = 5
    depth[0, 0, :3] = np.nan
    with pytest.warns(UserWarning, match=r"^3 depth pixels without a measurement \(0\.1 %\) were filled"):
        segment(backend, {"modal": given["modal"], "depth": backend.xp.asarray(depth)}, depth_kind="metric")


def test_a_kind_of_depth_needs_depth(backend: Any) -> None:
    given = clip()
    with pytest.raises(InputError, match="`depth_kind` says what `depth` is, and there is none"):
        segment(backend, {"modal": given["modal"], "rgb": given["rgb"]}, depth_kind="metric")


@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_with_padding_sizes_are_those_of_the_padded_frame(stage: str, backend: Any) -> None:
    given, padding, ready = clip(size=(12, 20)), Padding(12, 20), Ready()
    given["amodal"] = padding.pad(given["amodal"], False)  # as `segment` returned it
    if stage == "segment":
        inputs = segment(backend, {"modal": given["modal"], "depth": given["depth"]}, padding=padding, ready=ready)
        np.testing.assert_array_equal(backend.to_host(inputs.raw), given["modal"])
    else:
        inputs = complete(backend, given, padding=padding, ready=ready)
    first, _ = conditions_of(inputs, backend)
    assert inputs.full_size == padding.size == (18, 30)
    assert ready == [(3, (18, 30))]
    around = 1.0 if stage == "complete" else -1.0  # nothing is visible around the frame
    assert (first[:, :, 0] == around).all()
    assert (first[:, :, :, 0] == around).all()


def test_what_is_carried_over_is_visible_to_the_network_and_kept(backend: Any) -> None:
    given = clip()
    hidden = given["amodal"] & ~given["modal"]
    known = given["modal"] | (hidden & (np.arange(SIZE[1]) % 2 == 0))
    handed: list[Any] = []

    def propagate(rgb: Any, modal: Any, amodal: Any) -> Propagated:
        handed.extend((rgb, modal, amodal))
        filled = np.where((known & ~modal)[..., None], np.uint8(255 - 51), rgb)
        return Propagated(filled, known)

    inputs = complete(backend, given, propagate=propagate)
    for got, name in zip(handed, ("rgb", "modal", "amodal"), strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, given[name])
    seen, _ = conditions_of(inputs, backend)
    pictures = given["rgb"].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    want = np.where(given["modal"][:, None], pictures, np.where(known[:, None], np.float32(0.6), np.float32(1)))
    np.testing.assert_allclose(seen[:3], want, atol=1e-6)
    assert inputs.propagated is not None
    assert inputs.propagated.known is known
    np.testing.assert_array_equal(backend.to_host(inputs.visible), known)


def test_counts_that_do_not_match_are_refused(backend: Any) -> None:
    given, other, ready = clip(3), clip(2), Ready()
    pairs: list[tuple[Any, dict[str, Any], str]] = [
        (segment, {"modal": given["modal"], "depth": other["depth"]}, "modal has 3 frames and depth has 2"),
        (segment, {"modal": given["modal"], "rgb": other["rgb"]}, "modal has 3 frames and rgb has 2"),
        (complete, {**given, "modal": other["modal"]}, "rgb has 3 frames and modal has 2"),
        (complete, {**given, "amodal": other["amodal"]}, "rgb has 3 frames and amodal has 2"),
    ]
    for make, arrays, message in pairs:
        with pytest.raises(InputError, match=f"{message}; expected the same number"):
            make(backend, arrays, ready=ready)
    assert ready == [], "nothing runs"


def test_more_frames_than_the_bundle_takes_are_refused_with_the_number_that_fits(backend: Any) -> None:
    given = clip(FRAMES + 1)
    with pytest.raises(
        InputError, match=r"modal has 6 frames, this bundle takes at most 5; .*`amodal export --frames 6`\."
    ):
        segment(backend, {"modal": given["modal"], "depth": given["depth"]})
    with pytest.raises(InputError, match="rgb has 6 frames, this bundle takes at most 5"):
        complete(backend, given)


def test_segmentation_without_depth_and_frames_is_refused(backend: Any) -> None:
    with pytest.raises(InputError, match="neither was given"):
        segment(backend, {"modal": clip()["modal"]})


def test_values_that_do_not_fit_are_refused_wherever_they_are(backend: Any) -> None:
    given, ready = clip(), Ready()
    given["depth"][1, 2, 3] = np.nan
    with pytest.raises(InputError, match="depth"):
        segment(backend, {"modal": given["modal"], "depth": backend.xp.asarray(given["depth"])}, ready=ready)
    prepared = np.full((3, 3, *SIZE), 2.0, np.float32)
    with pytest.raises(InputError, match="rgb"):
        complete(backend, {**given, "rgb": backend.xp.asarray(prepared)}, ready=ready)
    assert ready == []


def test_an_object_of_which_nothing_is_left_is_refused_without_waiting_for_a_device(backend: Any) -> None:
    given, ready = clip(size=(80, 160)), Ready()
    tiny = np.zeros_like(given["modal"])
    tiny[1, 40, 80] = True
    for modal in (tiny, tiny.astype(np.uint8) * np.uint8(255)):
        if backend.xp is np:
            with pytest.raises(InputError, match="nothing is left when 80x160 is resized to the bundle's 8x16"):
                segment(backend, {"modal": modal, "depth": given["depth"]}, ready=ready)
        else:
            segment(backend, {"modal": modal, "depth": given["depth"]})
    assert ready == []
    segment(backend, {"modal": tiny & False, "depth": given["depth"]}, ready=ready)
    tiny[0] = given["modal"][0]
    segment(backend, {"modal": tiny, "depth": given["depth"]}, ready=ready)
    assert len(ready) == 2, "an object that is not seen at all, or that is left in one frame, is run"


def test_a_clip_that_is_long_enough_is_no_copy(backend: Any) -> None:
    array = backend.xp.asarray(np.zeros((4, 2)))
    assert padded(array, 4, backend.xp) is array
    longer = backend.to_host(padded(backend.xp.asarray(np.arange(3.0)), 5, backend.xp))
    assert longer.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize(("size", "fits"), [((45, 80), True), ((23, 40), True), (SIZE, True), ((22, 80), False)])
def test_masks_have_the_frames_size_or_ratio_or_are_resized_already(
    size: tuple[int, int], fits: bool, backend: Any
) -> None:
    masks, frames = clip(size=size), clip(size=(45, 80))
    given = {**frames, "depth": None, "modal": masks["modal"]}
    if fits:
        complete(backend, {k: v for k, v in given.items() if k != "depth"})
        segment(backend, given, find_depth=lambda pictures: pictures[:, 0])
        return
    with pytest.raises(InputError, match=r"modal is 22x80 and rgb is 45x80 \(height x width\), pictures of different"):
        segment(backend, given)
    with pytest.raises(InputError, match="rgb is 45x80 and modal is 22x80"):
        complete(backend, {k: v for k, v in given.items() if k != "depth"})


def test_ids_of_several_objects_are_refused_wherever_they_are(backend: Any) -> None:
    given = clip(size=(45, 80))
    ids = given["modal"] * np.uint8(3)
    np.testing.assert_array_equal(
        segment(backend, {**given, "modal": backend.xp.asarray(ids)}).visible,
        segment(backend, given).visible,
    )
    ids[:, 30:40, 50:60] = 1
    with pytest.raises(InputError, match="such as `modal == 3`"):
        segment(backend, {**given, "modal": backend.xp.asarray(ids)})
