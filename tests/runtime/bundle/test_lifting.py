"""Bundles of schema 1 still open: the default bundle as it was, and what was wrong with a manifest is still said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.runtime.bundle.lifting import lift
from amodal.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from amodal.runtime.errors import BundleCorruptError
from amodal.runtime.families import Bundle
from amodal.runtime.scenes import make_scene

SCHEMA_1 = Path(__file__).with_name("default_schema_1.json")


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMA_1.read_text())
    assert found["schema_version"] == 1
    # The graphs were written in another opset since, which one byte of each says.
    for key, entry in Bundle("default").manifest.components.items():
        for file, now in zip(found["components"][key]["files"], entry.files, strict=True):
            assert (file["path"], file["bytes"]) == (now.path, now.bytes)
            file["sha256"] = now.sha256
    return found


def bundle_of(document: Any, folder: Path) -> Path:
    """The default bundle's graphs with another manifest."""
    (folder / "graphs").symlink_to(Bundle("default").path / "graphs")
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    return folder


def test_the_default_bundle_of_schema_1_is_what_the_package_holds_now(document: dict[str, Any], tmp_path: Path) -> None:
    opened, now = Bundle(bundle_of(document, tmp_path)), Bundle("default")
    assert opened.config.size_multiple is None, "it was not recorded"
    assert now.config.size_multiple == 16
    assert (opened.config.domain, now.config.domain is None) == (None, False), "nor was this"
    assert opened.config == now.config.model_copy(update={"size_multiple": None, "domain": None})
    assert opened.manifest == now.manifest.model_copy(update={"config": opened.manifest.config})


@pytest.mark.slow
def test_it_draws_the_same_bits(document: dict[str, Any], tmp_path: Path) -> None:
    scene = make_scene(3, 8, (64, 128))
    found = []
    for bundle in (bundle_of(document, tmp_path), "default"):
        with amodal.load(bundle) as model:
            seen = model.segment(scene.modal, depth=scene.depth, steps=2)
            whole = model.complete(scene.frames, scene.modal, seen.masks, seed=seen.noise, steps=1)
            found.append((seen.masks, seen.frames, whole.frames, whole.known))
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(before, after)


def test_facts_of_components_follow_from_their_kinds(document: dict[str, Any]) -> None:
    lifted = Manifest.model_validate(lift(document))
    for entry in lifted.components.values():
        assert entry.repeated == (entry.kind == "unet")
        assert entry.least_precision == ("fp32" if entry.kind in ("vae_encoder", "unet_conditioner") else "fp16")
        assert entry.bfloat16 == (entry.kind != "unet_conditioner")
        assert [file.role for file in entry.files][:1] == ["graph"]
        for file in entry.files:
            assert file.role == (
                "fused" if ".fused." in file.path else "graph" if file.path.endswith("x") else "weights"
            )


def test_depth_becomes_a_role_of_the_task_that_needs_it(document: dict[str, Any]) -> None:
    document["depth"] = {"height": 518, "width": 1036, "model": "small"}
    document["components"]["depth"] = {**document["components"]["image_encoder"], "kind": "depth"}
    tasks = lift(document)["tasks"]
    assert tasks["segment"]["components"]["depth"] == "depth"
    assert "depth" not in tasks["complete"]["components"]
    assert "depth" not in document["stages"]["segment"]["components"], "what was read is not changed"


def test_what_was_read_is_left_as_it_is(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    lift(document)
    assert document == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.pop("stages"), "'stages' is missing or wrong; export the bundle again"),
        (lambda d: d.update(stages=7), "is missing or wrong"),
        (lambda d: d.pop("components"), "'components' is missing or wrong"),
        (lambda d: d["components"]["vae_decoder"].pop("kind"), "'kind' is missing or wrong"),
        (lambda d: d.pop("frames"), "frames: Field required"),
        (lambda d: d.update(frames=0), "frames: Input should be greater than 0"),
        (lambda d: d.update(novelty=1), "novelty: Extra inputs are not permitted"),
        (lambda d: d["stages"]["segment"]["components"].pop("unet"), "segment has no component unet"),
    ],
)
def test_a_damaged_one_is_refused(
    spoil: Callable[[Any], Any], message: str, document: dict[str, Any], tmp_path: Path
) -> None:
    spoil(document)
    with pytest.raises(BundleCorruptError, match=message):
        Bundle(bundle_of(document, tmp_path))
