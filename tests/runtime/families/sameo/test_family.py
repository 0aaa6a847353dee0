"""SAMEO as a family: what generic code reads of it, and the same results on a device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.build import BuildSettings, build_engines
from amodal.engines.verification import VerifySettings
from amodal.engines.verify import verify_bundle
from amodal.runtime.errors import BundleCorruptError, InputError, MemoryBudgetError
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle
from amodal.runtime.families.sameo.family import PredictInputs, some_boxes
from amodal.runtime.families.sameo.predicting import Asked
from amodal.runtime.families.sameo.shape import PictureRun
from amodal.runtime.loading import load

from ....stand_ins import StandIn
from .conftest import PICTURE


@pytest.fixture
def engines(sameo_bundle: Path, gpu: StandIn, tmp_path: Path) -> Path:
    build_engines(Bundle(sameo_bundle), BuildSettings("tensorrt", "this", engine_dir=tmp_path / "engines"))
    return tmp_path / "engines"


def test_every_call_has_a_profile_that_accepts_it(sameo_bundle: Path) -> None:
    bundle = Bundle(sameo_bundle)
    assert bundle.family.calls(bundle.manifest, Run(("predict",))) == bundle.family.calls(bundle.manifest)
    for run in (None, PictureRun(boxes=1), PictureRun(boxes=3, given=(720, 1280))):
        made = bundle.family.calls(bundle.manifest, run)
        assert [phase.name for phase in made.phases] == ["encode", "decode"]
        for call in (call for phase in made.phases for call in phase.calls):
            profiles = {profile.name: profile for profile in bundle.family.profiles(bundle.manifest, call.component)}
            (size,) = call.axes.values()
            low, _, high = profiles[call.profile].shapes["pixels" if "pictures" in call.axes else "prompts"]
            assert low[0] <= size <= high[0]
    with pytest.raises(InputError, match="5 boxes at once: this bundle takes 1 to 4"):
        bundle.family.calls(bundle.manifest, PictureRun(boxes=5))
    with pytest.raises(InputError, match="no segment stage, only predict"):
        bundle.family.calls(bundle.manifest, PictureRun(("segment",)))


def test_the_task_is_run_by_name(model: Any, picture: Any, boxes: Any) -> None:
    found = model.run("predict", PredictInputs(picture, Asked(boxes)))
    np.testing.assert_array_equal(found.masks, model.predict(picture, boxes).masks)
    with pytest.raises(InputError, match="predict was given int; expected PredictInputs"):
        model.run("predict", 3)
    with pytest.raises(InputError, match="has no segment stage, only predict"):
        model.run("segment", 3)


@pytest.mark.slow
def test_a_bundle_is_verified(sameo_bundle: Path) -> None:
    found = verify_bundle(Bundle(sameo_bundle), VerifySettings(seed=3))
    assert found.ok, found.problems
    assert [(row.component, row.calls) for row in found.components] == [("image_encoder", 1), ("mask_decoder", 1)]
    assert [row.stage for row in found.stages] == ["predict"]


def test_a_trial_has_boxes_inside_the_picture() -> None:
    mask = np.zeros((40, 60), bool)
    for whole in (mask, ~mask):
        boxes = some_boxes(whole, 16, 3)
        assert boxes[0].tolist() == [0, 0, 60, 40]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(np.unique(boxes, axis=0)) == 16


def test_a_device_gives_what_the_host_gives(
    model: Any, sameo_bundle: Path, engines: Path, gpu: StandIn, picture: Any, boxes: Any
) -> None:
    expected = model.predict(picture, boxes, logits=True)
    clip = np.stack([picture] * 5)
    modal = np.zeros((5, *PICTURE), bool)
    modal[:, 20:60, 30:70] = True
    segmented = model.segment(modal, rgb=clip)
    with load(sameo_bundle, "tensorrt", engine_dir=engines) as on_gpu:
        on_gpu.warm_up(frame_size=PICTURE)
        xp = on_gpu.backend.xp
        with on_gpu.backend.active():
            given = {"image": xp.asarray(picture), "boxes": xp.asarray(boxes)}
        for arguments in (given, {"image": picture, "boxes": boxes}, {"image": picture / 255, "boxes": boxes}):
            found = on_gpu.predict(**arguments, logits=True)
            np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3)
            assert (found.masks != expected.masks).mean() < 1e-3
        with on_gpu.backend.active(), pytest.raises(InputError, match="divide it by 255"):
            on_gpu.predict(xp.asarray(picture.astype(np.float32)), boxes)
        again = on_gpu.segment(modal, rgb=clip)
        assert (again.masks_full != segmented.masks_full).mean() < 1e-3
        with on_gpu.stream() as stream:
            (seen,) = stream.step(picture, modal[0], stamp=0.0)
        np.testing.assert_array_equal(seen.objects[0].mask, again.masks_full[0])
        several = [picture, picture[:50], picture, picture, picture]
        assert [encoding.size for encoding in on_gpu.encode_images(several)] == [p.shape[:2] for p in several]
    with (
        load(sameo_bundle, "tensorrt", engine_dir=engines, vram="22MB") as limited,
        pytest.raises(MemoryBudgetError, match="`batch="),
    ):
        limited.predict(np.zeros((900, 1500, 3), np.uint8), boxes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["config"].pop("embedding"), "embedding: Field required"),
        (lambda d: d["config"].update(height=d["config"]["patch"] + 1), "does not consist of whole patches"),
        (lambda d: d["config"].update(slots=1), "cannot hold a box"),
        (lambda d: d["tasks"]["predict"]["components"].pop("mask_decoder"), "predict has no component mask_decoder"),
        (lambda d: d["tasks"].update(segment=d["tasks"]["predict"]), "task 'segment' is unknown; expected predict"),
    ],
)
def test_a_config_that_cannot_be_is_refused(spoil: Any, message: str, sameo_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(sameo_bundle, tmp_path / "bundle")
    file = tmp_path / "bundle" / "manifest.json"
    document = json.loads(file.read_text())
    spoil(document)
    file.write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match=message):
        Bundle(tmp_path / "bundle")
