"""Both families on the same scenes: what a cascade takes from which, what it costs, and the table."""

from __future__ import annotations

import numpy as np
import pytest

from amodal.bench.quality import ClipTruth
from amodal.bench.studies import families
from amodal.bench.studies.families import BY_SHARE, CLIP, Bundles, Found, SceneFound, markdown, run_scene
from amodal.runtime.scenes import Scene


def filled(count: int, value: bool) -> np.ndarray:
    return np.full((count, 4, 6), value)


@pytest.mark.parametrize(
    ("taken", "seconds"),
    [([True, False, True, False], 10 + 4 * 0.5), ([True] * 4, 4.0), ([False] * 4, 10.0)],
)
def test_a_cascade_pays_for_the_clip_unless_all_frames_are_taken(taken: list[bool], seconds: float) -> None:
    clip = Found(filled(4, False), 10.0, np.zeros(4, bool))
    single = Found(filled(4, True), 4.0, np.ones(4, bool))
    found = families._cascade(clip, single, np.array(taken), sum(taken))
    assert found.seconds == pytest.approx(seconds)
    assert found.masks.any(axis=(1, 2)).tolist() == taken
    assert found.by_picture.tolist() == taken


def test_the_cascade_by_share_takes_frames_of_which_most_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    def grown(scene: Scene, *_: object) -> Found:
        masks = scene.modal.copy()
        masks[::2] = True  # far more than is visible
        return Found(masks, 1.0, np.ones(len(masks), bool))

    def empty(scene: Scene, *_: object) -> Found:
        return Found(np.zeros_like(scene.modal), 1.0, np.zeros(len(scene.modal), bool))

    monkeypatch.setattr(families, "_by_picture", grown)
    monkeypatch.setattr(families, "_by_clip", empty)
    found = run_scene(500_003, Bundles("default", "default-sameo", 1, 0.9)).found[BY_SHARE]
    assert found.by_picture.tolist() == [False, True] * 4
    assert found.masks.any(axis=(1, 2)).tolist() == [False, True] * 4


def test_the_table_has_a_line_for_each_way_with_its_scores() -> None:
    truth = ClipTruth("scene", filled(2, False) | (np.arange(6) < 3), filled(2, True))
    right, wrong = (Found(filled(2, value), 0.5, np.ones(2, bool)) for value in (True, False))
    clips = [SceneFound(truth, {CLIP: right, BY_SHARE: wrong})] * 2
    lines = markdown(clips, {CLIP: 3_000_000, "SAMEO": 2_000_000}).splitlines()
    assert lines[2] == "| modal | 50.0 | 0.0 | - | - | - |"
    assert lines[4] == "| Diffusion-VAS | 100.0 | 100.0 | 250.0 | 100 % | 3 |"
    assert lines[5] == "| cascade by share | 0.0 | 0.0 | 250.0 | 100 % | 3 + 2 |"
