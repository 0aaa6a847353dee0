"""What the default bundle's networks know: nothing is said of scenes, everything of clips that are unlike them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.domain import find_unlike, measure_depth, measure_frames, measure_masks
from amodal.runtime.files.masks import read_masks
from amodal.runtime.scenes import make_scene

CONFIG: Any = Bundle("default").config
SIZE = CONFIG.size


def unlike(scene: Any, **changed: Any) -> list[str]:
    given = {"frames": scene.frames, "modal": scene.modal, "depth": scene.depth, **changed}
    return find_unlike(CONFIG, **given)


@pytest.mark.parametrize("seeds", [range(50), range(500_000, 500_050)])
def test_scenes_are_like_scenes(seeds: range) -> None:
    found = {seed: clauses for seed in seeds if (clauses := unlike(make_scene(seed)))}
    assert found == {}


def test_scenes_drawn_larger_are_like_scenes() -> None:
    for seed in range(6):
        assert unlike(make_scene(seed, 8, (256, 512))) == []


@pytest.mark.slow
def test_the_ranges_are_those_of_the_training_scenes() -> None:
    """Of the first 120: the stored ranges hold nearly all of them, and are not much wider."""
    found: dict[str, list[float]] = {}
    for index in range(120):
        larger = 4 if index % 2 else 1
        scene = make_scene(1_000_000 + index, 8, (larger * 64, larger * 128))
        depth = measure_depth(scene.depth, scene.modal, SIZE)
        for name, value in (measure_frames(scene.frames, SIZE) | measure_masks(scene.modal, SIZE) | depth).items():
            found.setdefault(name, []).append(value)
    assert set(found) == set(type(CONFIG.domain).model_fields) - {"about"}
    for name, values in found.items():
        low, high = getattr(CONFIG.domain, name)
        assert np.mean([low <= value <= high for value in values]) >= 0.98, name
        assert high < 2.2 * max(values)
        assert low > min(values) / 4


@pytest.mark.parametrize("name", ["birdcage", "soccer"])
def test_real_video_is_not(shared: Path, name: str) -> None:
    folder = shared / "samples" / name
    paths = sorted((folder / "rgbs").iterdir())[:8]
    frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    clauses = find_unlike(CONFIG, frames, read_masks(folder / "masks")[:8])
    assert any("detail of photographs" in clause for clause in clauses)


def test_each_measure_speaks_for_itself() -> None:
    scene = make_scene(1)
    rng = np.random.default_rng(0)
    still = np.repeat(scene.modal[:1], 8, axis=0)
    grainy = np.clip(scene.frames + rng.normal(0, 20, scene.frames.shape), 0, 255).astype(np.uint8)
    changes: dict[str, dict[str, Any]] = {
        "detail of photographs": {"frames": grainy},
        "frames are nearly blank": {"frames": scene.frames // 255 * 0},
        "the object hardly moves": {"modal": still},
        "the object is large": {"modal": np.ones_like(still) & (np.arange(128) < 90 + np.arange(8)[:, None, None])},
        "depth is rough": {"depth": rng.random(scene.depth.shape)},
        "depth is flat": {"depth": np.zeros(scene.depth.shape)},
        "hardly anything is nearer": {"depth": np.where(scene.modal, 1, scene.depth * 0.5)},
        "stretched 2.0 times in height": {"frames": scene.frames[:, ::2]},
    }
    for words, change in changes.items():
        assert any(words in clause for clause in unlike(scene, **change)), words
    assert not any("stretched" in clause for clause in unlike(scene))


def test_a_bundle_without_a_domain_knows_everything() -> None:
    config = CONFIG.model_copy(update={"domain": None})
    noise = np.random.default_rng(0).integers(0, 256, (3, 100, 100, 3), np.uint8)
    assert find_unlike(config, noise, noise[..., 0] > 128, noise[..., 1]) == []
    assert find_unlike(CONFIG) == []


def test_measures_are_their_definitions_in_loops() -> None:
    size, rng = (8, 12), np.random.default_rng(3)
    modal = rng.random((4, *size)) < 0.4
    depth = np.round(rng.random((4, *size)), 1).astype(np.float32)
    depth[0, 0, 0], depth[0, 0, 1] = 0, 1
    changed = either = bends = nearer = 0
    for t, y, x in np.ndindex(3, *size):
        changed += int(modal[t, y, x] != modal[t + 1, y, x])
        either += int(modal[t, y, x] or modal[t + 1, y, x])
    middle = np.median([depth[place] for place in np.ndindex(depth.shape) if modal[place]])
    for t, y, x in np.ndindex(depth.shape):
        nearer += int(depth[t, y, x] > middle + 0.05)
        if 0 < y < size[0] - 1 and 0 < x < size[1] - 1:
            beside = sum(depth[t, y + v, x + u] for v, u in ((0, 1), (1, 0), (0, -1), (-1, 0)))
            bends += int(abs(4 * depth[t, y, x] - beside) > 0.01)
    masks, maps = measure_masks(modal, size), measure_depth(depth, modal, size)
    assert masks["motion"] == pytest.approx(changed / either)
    assert masks["area"] == max(mask.sum() for mask in modal) / 96
    assert maps["relief"] == pytest.approx(bends / (4 * 6 * 10))
    assert maps["nearer"] == pytest.approx(nearer / depth.size, abs=0.02)


def test_detail_is_the_distance_from_the_median_of_the_neighbours() -> None:
    size, rng = (8, 12), np.random.default_rng(4)
    grey = rng.integers(0, 256, (2, *size), np.uint8)
    total = 0.0
    for t, y, x in np.ndindex(grey.shape):
        rows, columns = np.clip([y - 1, y, y + 1], 0, 7), np.clip([x - 1, x, x + 1], 0, 11)
        total += abs(int(grey[t, y, x]) - float(np.median(grey[t][np.ix_(rows, columns)])))
    measured = measure_frames(np.repeat(grey[..., None], 3, axis=-1), size)
    assert measured["grain"] == pytest.approx(total / grey.size)


def test_a_clip_without_motion_or_object_has_no_such_measure() -> None:
    nothing = np.zeros((3, 8, 12), bool)
    assert measure_masks(nothing, (8, 12)) == {"area": 0.0}
    assert set(measure_depth(nothing.astype(np.float32), nothing, (8, 12))) == {"relief"}
    assert "motion" not in measure_masks(~nothing[:1], (8, 12))
