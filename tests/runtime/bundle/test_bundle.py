"""Bundles that are whole, and each way of not being so."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.runtime.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.errors import BundleCorruptError, BundleError, BundleNotFoundError, BundleVersionError
from amodal.runtime.families import Bundle

WEIGHTS = "graphs/segment_unet.onnx.data"
GRAPH = "graphs/segment_unet.onnx"


@pytest.fixture
def copy(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle that may be damaged; its graphs are links until `own` is called."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    shutil.copy(toy_bundle / MANIFEST_NAME, folder)
    for file in (toy_bundle / "graphs").iterdir():
        (folder / "graphs" / file.name).symlink_to(file)
    return folder


def own(file: Path) -> Path:
    """Makes a real file of a link, so that the session's bundle stays as it is."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    return file


def rewrite(bundle: Path, change: Callable[[Any], None]) -> None:
    """Changes the manifest as somebody with an editor would."""
    file = bundle / MANIFEST_NAME
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def segment(bundle: Path, **options: Any) -> Any:
    modal = np.zeros((3, 64, 64), bool)
    modal[:, 20:40, 10:50] = True
    depth = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64)).astype(np.float32)
    with amodal.load(bundle, **options) as model:
        return model.segment(modal, depth=depth, steps=1)


def file_entry(document: Any, path: str) -> Any:
    for component in document["components"].values():
        for entry in component["files"]:
            if entry["path"] == path:
                return entry
    raise AssertionError(path)


# A whole one.


def test_a_bundle_knows_its_files_and_they_have_the_hashes_it_names(toy_bundle: Path) -> None:
    bundle = Bundle(str(toy_bundle))
    assert {entry.kind for entry in bundle.manifest.components.values()} == {
        *("image_encoder", "vae_encoder", "vae_decoder", "unet", "unet_conditioner"),
    }
    named = set()
    for key, entry in bundle.manifest.components.items():
        assert bundle.files(key)[0].suffix == ".onnx", "the graph comes first"
        assert bundle.component(key) == entry
        for file, record in zip(bundle.files(key), entry.files, strict=True):
            content = file.read_bytes()
            assert record.sha256 == hashlib.sha256(content).hexdigest()
            assert record.bytes == len(content)
            named.add(file)
        bundle.verify(key)
        assert entry.bytes == sum(f.stat().st_size for f in bundle.files(key))
    assert named == set((toy_bundle / "graphs").iterdir())


def test_hashing_reports_its_progress_in_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    content = bytes(range(256)) * 40_000
    file.write_bytes(content)
    reports: list[tuple[Any, ...]] = []
    assert sha256_of(file, lambda *report: reports.append(report)) == hashlib.sha256(content).hexdigest()
    assert len(reports) > 1
    assert [what for what, *_ in reports] == ["file"] * len(reports)
    assert [done for *_, done, _ in reports] == sorted({done for *_, done, _ in reports})
    assert reports[-1] == ("file", "check", len(content), len(content))


def test_a_component_is_hashed_once_per_bundle(toy_bundle: Path) -> None:
    bundle, ended = Bundle(toy_bundle), []
    for _ in range(2):
        bundle.verify("image_encoder", lambda what, phase, done, total: ended.append(what) if done == total else None)
    assert ended == [file.name for file in bundle.files("image_encoder")]


def test_the_stages_share_what_they_have_in_common(toy_bundle: Path) -> None:
    stages = Bundle(toy_bundle).manifest.tasks
    first, second = stages["segment"].components, stages["complete"].components
    assert {kind for kind in first if first[kind] == second[kind]} == {"image_encoder", "vae_encoder", "vae_decoder"}


# None, or not a whole one.


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="nowhere is not a bundle: expected a folder"):
        amodal.load(tmp_path / "nowhere")


def test_a_file_is_no_bundle(toy_bundle: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="is not a bundle"):
        amodal.load(toy_bundle / MANIFEST_NAME)


def test_a_folder_without_a_manifest_is_not_a_finished_bundle(copy: Path) -> None:
    (copy / MANIFEST_NAME).unlink()
    with pytest.raises(BundleNotFoundError, match=r"not a finished bundle: it has no manifest\.json"):
        amodal.load(copy)


@pytest.mark.parametrize("keep", [0, 1, 700, -3])
def test_a_truncated_manifest_is_refused(keep: int, copy: Path) -> None:
    file = copy / MANIFEST_NAME
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BundleCorruptError, match=r"manifest\.json cannot be read"):
        amodal.load(copy)


@pytest.mark.parametrize(
    "content", [b"[]", b"7", b"null", b'{"schema_version": "1"}', b"{}", b"\xff\xfe\x00", b"[" * 100_000]
)
def test_a_manifest_that_is_something_else_is_refused(content: bytes, copy: Path) -> None:
    (copy / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleCorruptError, match=r"manifest\.json"):
        amodal.load(copy)


def test_a_manifest_of_a_newer_schema_is_told_apart_whatever_else_it_says(copy: Path) -> None:
    rewrite(copy, lambda d: d.update(schema_version=SCHEMA_VERSION + 1, frames="many", news=[1]))
    with pytest.raises(BundleVersionError, match=rf"schema version {SCHEMA_VERSION + 1}.*update amodal"):
        amodal.load(copy)


def test_a_bundle_of_another_family_is_refused(copy: Path) -> None:
    rewrite(copy, lambda d: d.update(family="another"))
    with pytest.raises(
        BundleVersionError, match=r"family another, this amodal runs diffusion-vas, sameo; update amodal"
    ):
        amodal.load(copy)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d.update(colour="blue"), "colour"),
        (lambda d: d["components"]["image_encoder"].update(speed=3), r"components\.image_encoder\.speed"),
        (lambda d: d["config"].pop("frames"), "frames"),
        (lambda d: d["config"].update(frames=0), "frames"),
        (lambda d: d["config"].update(context_layout="both"), "context_layout"),
        (lambda d: d["config"].update(scaling_factor=-1.0), "scaling_factor"),
        (lambda d: d.update(family=3), "family"),
        (lambda d: d["components"]["image_encoder"].update(files=[]), r"components\.image_encoder\.files"),
        (lambda d: file_entry(d, GRAPH).update(sha256="0"), "sha256"),
        (
            lambda d: d["tasks"]["segment"]["components"].update(unet="nothing"),
            "segment has no component unet .*nothing",
        ),
        (lambda d: d["tasks"]["segment"]["components"].update(unet="vae_decoder"), "segment has no component unet"),
        (lambda d: d["tasks"]["segment"]["components"].pop("unet"), "segment has no component unet"),
        (lambda d: d["components"].pop("vae_decoder"), "segment has no component vae_decoder"),
        (
            lambda d: d["config"].update(depth={"height": 518, "width": 518, "model": "x"}),
            "segment has no component depth",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_the_schema_is_refused_with_the_place(
    change: Callable[[Any], None], where: str, copy: Path
) -> None:
    rewrite(copy, change)
    with pytest.raises(BundleCorruptError, match=where):
        amodal.load(copy)


@pytest.mark.parametrize(
    "path", ["../outside.onnx", "graphs/../../outside.onnx", "/etc/hostname", "", ".", "graphs/../.."]
)
def test_a_path_that_leaves_the_bundle_is_refused(path: str, copy: Path) -> None:
    (copy.parent / "outside.onnx").write_bytes(b"")
    rewrite(copy, lambda d: file_entry(d, GRAPH).update(path=path, bytes=0))
    with pytest.raises(BundleCorruptError, match="does not stay inside the bundle"):
        amodal.load(copy)


# Files.


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_a_missing_file_is_named_before_anything_runs(file: str, copy: Path) -> None:
    (copy / file).unlink()
    with pytest.raises(BundleCorruptError, match=rf"{file} is missing from the bundle"):
        amodal.load(copy)


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_a_truncated_file_is_named_before_anything_runs(file: str, copy: Path) -> None:
    whole = own(copy / file).read_bytes()
    (copy / file).write_bytes(whole[:-1])
    with pytest.raises(BundleCorruptError, match=rf"{file} has {len(whole) - 1} bytes where .* says {len(whole)}"):
        amodal.load(copy, verify=False)


def test_a_file_truncated_after_the_bundle_was_opened_is_noticed_when_it_is_verified(copy: Path) -> None:
    bundle = Bundle(copy)
    file = own(copy / WEIGHTS)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BundleCorruptError, match="has 100 bytes"):
        bundle.verify("segment_unet")


def flip(file: Path, at: int) -> None:
    content = bytearray(own(file).read_bytes())
    content[at] ^= 0x01
    file.write_bytes(content)


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_one_flipped_bit_is_noticed_before_the_component_runs(file: str, copy: Path) -> None:
    flip(copy / file, -40)
    with pytest.raises(BundleCorruptError, match=rf"{file} differs from the hash"):
        segment(copy)


def test_without_verification_a_flipped_bit_goes_unnoticed(copy: Path, toy_bundle: Path) -> None:
    # The lowest bit of one weight, so that the run itself is none the worse.
    flip(copy / WEIGHTS, 4096)
    np.testing.assert_allclose(segment(copy, verify=False).frames, segment(toy_bundle).frames, atol=2)


def test_a_graph_that_is_no_onnx_is_refused_although_its_hash_is_right(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "off")
    content = b"this is not a graph"
    own(copy / GRAPH).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(copy, lambda d: file_entry(d, GRAPH).update(sha256=digest, bytes=len(content)))
    with pytest.raises(BundleCorruptError, match=rf"cannot load .*{GRAPH}"):
        segment(copy)


def test_every_failure_of_a_bundle_is_one_kind_of_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        amodal.load(tmp_path)
    assert all(issubclass(e, amodal.AmodalError) for e in (BundleCorruptError, BundleNotFoundError, BundleVersionError))


def test_a_folder_called_default_is_not_the_packages_own(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from amodal.cli import main

    shutil.copytree(toy_bundle, tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    for name, frames in (("./default", "3 frames of 64x64"), ("default", "8 frames of 64x128")):
        with pytest.raises(SystemExit):
            main(["inspect", name])
        assert frames in capsys.readouterr().out
