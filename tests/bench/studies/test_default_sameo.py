"""The measure of the default SAMEO model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.bench.studies.default_sameo import find, table
from amodal.runtime.loading import load
from amodal.runtime.scenes import make_scene


class Stand:
    """A model that finds the box it is asked with, and expects an IoU of 0.5."""

    def predict_from_masks(self, image: Any, modal: Any, unite: bool) -> Any:
        assert not unite
        made = np.zeros_like(modal)
        for one, mask in zip(made, modal, strict=True):
            y, x = np.nonzero(mask)
            one[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        return SimpleNamespace(masks=made, iou=np.full(len(modal), 0.5))


def test_scores_and_errors_are_those_of_a_slow_reference() -> None:
    scenes = [make_scene(seed) for seed in (500_000, 500_001, 500_003)]
    found = {"visible box": [find(Stand(), scene, scene.modal) for scene in scenes]}  # type: ignore[arg-type]
    united, hidden, errors = [], [], []
    for scene, one in zip(scenes, found["visible box"], strict=True):
        for frame in range(8):
            mask, modal, amodal = one.masks[frame], scene.modal[frame], scene.amodal[frame]
            if modal.any():
                errors.append(abs(0.5 - (mask & amodal).sum() / (mask | amodal).sum()))
            else:
                assert not mask.any()
            if not amodal.any():
                continue
            whole = mask | modal
            united.append((whole & amodal).sum() / (whole | amodal).sum())
            if (amodal & ~modal).any():
                hidden.append((whole & ~modal & amodal).sum() / ((whole | amodal) & ~modal).sum())
    *_, last = table(scenes, found).splitlines()
    assert last == (
        f"| visible box, united with what is visible | {100 * np.mean(united):.1f} | {100 * np.mean(hidden):.1f} |  |"
    )
    assert f"| {np.mean(errors):.3f} |" in table(scenes, found)


@pytest.mark.slow
def test_the_default_model_completes_objects_of_unseen_scenes() -> None:
    scenes = [make_scene(seed) for seed in range(500_000, 500_020)]
    with load("default-sameo", threads=1) as model:
        found = {"whole box": [find(model, scene, scene.amodal) for scene in scenes]}
    miou, hidden, _ = (float(cell) for cell in table(scenes, found).splitlines()[2].split("|")[2:5])
    assert (miou > 60, hidden > 40) == (True, True)
