"""Data sets with a bundle of SAMEO, which takes pictures as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.places import SHARED

from amodal import load
from amodal.bench.datasets import entry
from amodal.bench.datasets.running import bundle_hash, model_predictor
from amodal.runtime.bundle.reading import find_bundle
from amodal.runtime.errors import InputError

FILES = SHARED / "datasets"
BUNDLE = Path("default-sameo")
pytestmark = [
    pytest.mark.skipif(not FILES.is_dir(), reason="the small data sets are not here"),
    pytest.mark.skipif(not find_bundle(BUNDLE).is_dir(), reason="there is no default-sameo"),
]


def test_the_objects_of_a_picture_are_those_that_segment_finds_one_by_one() -> None:
    kins = entry("kins")
    clip = next(iter(kins.open(FILES / "kins").clips()))
    found = model_predictor(kins, BUNDLE, {}, {"threads": 1})(clip, 23)
    assert found.masks is not None
    assert len(found.detections) == len(clip.modal()) > 1
    with load("default-sameo", threads=1) as model:
        for mask, seen in zip(found.masks, clip.modal(), strict=True):
            alone = model.segment(seen[None], rgb=clip.rgb()).masks_full[0]
            assert (mask != alone).mean() < 1e-4
            assert np.all(mask[seen])


def test_a_packaged_bundle_has_the_same_hash_by_its_name_as_by_its_folder() -> None:
    assert bundle_hash(BUNDLE) == bundle_hash(find_bundle(BUNDLE))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [("tao-amodal", {}, "tao-amodal is scored on padded frames"), ("cocoa", {"steps": 3}, "steps: a SAMEO bundle")],
)
def test_what_takes_a_sampler_or_padded_frames_is_refused(name: str, settings: dict[str, int], said: str) -> None:
    dataset = entry(name)
    clip = next(iter(dataset.open(FILES / name).clips()))
    with pytest.raises(InputError, match=said):
        model_predictor(dataset, BUNDLE, settings, {"threads": 1})(clip, 23)
