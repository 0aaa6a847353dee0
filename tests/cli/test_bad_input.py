"""Bad input to `amodal run`, `amodal inspect` and `amodal bench`: one sentence, exit code 2, nothing left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.backends.onnxruntime.kernels import find_kernels, fused_file

from .conftest import NAMES, QUICK, Clip, assert_refusal, ended, issue, leftovers, start

Refused = Callable[..., str]


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return shutil.copytree(toy_bundle, tmp_path / "bundle")


@pytest.mark.parametrize("option", ["--frames", "--masks", "--depth"])
def test_a_folder_that_is_not_there(option: str, refused: Refused, toy_bundle: Path, kept_clip: Clip) -> None:
    sentence = refused("run", toy_bundle, *kept_clip.inputs, option, "nowhere")
    assert "nowhere does not exist" in sentence
    assert option in sentence


@pytest.mark.parametrize("option", ["--frames", "--masks", "--depth"])
def test_an_empty_folder(
    option: str, refused: Refused, toy_bundle: Path, kept_clip: Clip, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    sentence = refused("run", toy_bundle, *kept_clip.inputs, option, empty)
    assert f"{empty} is an empty folder" in sentence
    assert option in sentence


@pytest.mark.parametrize("option", ["--frames", "--masks", "--depth", "-o"])
def test_an_empty_path(option: str, toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "-o", tmp_path / "OUT", option, "")
    assert_refusal(outcome)
    assert "is empty" in outcome.err
    assert option in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "not an image", "empty"])
@pytest.mark.parametrize("which", ["frames", "masks", "depth"])
def test_a_damaged_image(which: str, damage: str, refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    file = getattr(clip, which) / NAMES[1]
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "not an image": b"hello", "empty": b""}[damage])
    sentence = refused("run", toy_bundle, *clip.inputs)
    assert f"{file} cannot be read as an image" in sentence
    assert f"--{which}" in sentence


def test_a_damaged_tiff_is_one_sentence_too(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    for name in NAMES:
        file = (clip.frames / name).with_suffix(".tif")
        Image.open(clip.frames / name).save(file)
        (clip.frames / name).unlink()
    file.write_bytes(file.read_bytes()[:-9])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert f"{file} cannot be read as an image" in refused("run", toy_bundle, *clip.inputs)
    assert caught == []


def test_a_damaged_video(toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of its own: with its first video, OpenCV settles for good how much FFmpeg says.
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"\0\0\0\x1cftypisom" + bytes(500))
    outcome = ended(start("run", toy_bundle, *kept_clip.inputs, "--frames", video, "-o", tmp_path / "OUT"))
    assert_refusal(outcome)
    assert "cannot be decoded as a video" in outcome.err
    assert list(tmp_path.iterdir()) == [video]


@pytest.mark.parametrize("which", ["masks", "depth"])
def test_numbers_that_differ(which: str, refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    (getattr(clip, which) / NAMES[0]).unlink()
    sentence = refused("run", toy_bundle, *clip.inputs)
    assert "1 of 3 frames have no " in sentence
    assert NAMES[0] in sentence
    assert "--missing-masks empty" in sentence if which == "masks" else "--depth" in sentence


def test_sizes_that_differ(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    for name in NAMES:
        Image.open(clip.masks / name).resize((28, 30)).save(clip.masks / name)
    sentence = refused("run", toy_bundle, *clip.inputs)
    assert "56 wide and 40 high" in sentence
    assert "28 wide and 30 high" in sentence


def test_one_frame_of_another_size(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    Image.open(clip.frames / NAMES[1]).resize((28, 20)).save(clip.frames / NAMES[1])
    assert f"{clip.frames / NAMES[1]} is 28 wide" in refused("run", toy_bundle, *clip.inputs)


def test_masks_without_the_object(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    for name in NAMES:
        Image.fromarray(np.zeros_like(clip.modal[0])).save(clip.masks / name)
    assert "None of the 3 masks shows the object" in refused("run", toy_bundle, *clip.inputs)


def test_masks_of_several_objects(refused: Refused, toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    file = tmp_path / "ids.npz"
    np.savez(file, np.where(kept_clip.modal, 3, 7).astype(np.uint8))
    options = ("run", toy_bundle, *kept_clip.inputs, "--masks", file)
    assert "holds 2 objects (3, 7) and no background of 0; pick one with --object" in refused(*options)
    assert "holds no object 5; --object can be 3, 7" in refused(*options, "--object", 5)
    assert "holds no object car_1; --object can be 3, 7" in refused(*options, "--object", "car_1")


def test_amodal_masks_that_do_not_fit_name_their_own_option(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    options = ("run", toy_bundle, *clip.inputs, "--stage", "complete")
    assert "give them with --amodal" in refused(*options)
    sentence = refused(*options, "--amodal", "nowhere")
    assert "nowhere does not exist" in sentence
    assert "--amodal" in sentence
    assert "--masks" not in sentence
    shorter = shutil.copytree(clip.masks, clip.masks.parent / "shorter")
    (shorter / NAMES[0]).unlink()
    sentence = refused(*options, "--amodal", shorter)
    assert "1 of 3 frames have no mask" in sentence
    assert "--amodal is for --stage complete" in refused("run", toy_bundle, *clip.inputs, "--amodal", clip.masks)


def test_an_out_that_exists_stays_as_it_was(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    for options, expected in (((), "give another folder for --out"), (("--overwrite",), "amodal did not write it")):
        outcome = issue("run", toy_bundle, *kept_clip.inputs, "-o", out, *options)
        assert_refusal(outcome)
        assert expected in outcome.err
    (out / "result.json").write_text('{"bbox": []}')
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "-o", out, "--overwrite")
    assert_refusal(outcome)
    assert "amodal did not write it" in outcome.err
    (out / "result.json").write_text("")
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "-o", out, "--overwrite", "--steps", 0)
    assert_refusal(outcome)
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "result.json"]
    assert leftovers(tmp_path) == []


def test_an_out_that_holds_the_input_is_not_replaced(toy_bundle: Path, clip: Clip) -> None:
    (clip.frames.parent / "result.json").touch()
    outcome = issue("run", toy_bundle, *clip.inputs, "-o", clip.frames.parent, "--overwrite")
    assert_refusal(outcome)
    assert len(list(clip.frames.iterdir())) == len(NAMES)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_an_out_where_nothing_can_be_made(toy_bundle: Path, kept_clip: Clip) -> None:
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "-o", "/proc/OUT", *QUICK)
    assert_refusal(outcome)
    assert "/proc/OUT could not be written" in outcome.err


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["segment_unet.onnx", "complete_unet.onnx.data", "vae_decoder.onnx.data"])
def test_a_graph_that_was_changed(name: str, refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    flip(bundle / "graphs" / name)
    assert f"{name} differs from the hash" in refused("run", bundle, *kept_clip.inputs, *QUICK)
    assert f"{name} differs from the hash" in refused("inspect", bundle, with_out=False)
    assert issue("inspect", bundle, "--no-verify").code == 0


def test_a_graph_that_is_none_is_found_out_without_hashes_too(refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    plain = bundle / "graphs" / "segment_unet.onnx"
    for file in (plain, fused_file(plain)):
        file.write_bytes(bytes(file.stat().st_size))
    used = plain if find_kernels().library is None else fused_file(plain)
    assert f"cannot load {used}" in refused("run", bundle, *kept_clip.inputs, *QUICK, "--no-verify")


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_graph_that_is_truncated_or_missing(command: str, refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    options = (*kept_clip.inputs, *QUICK) if command == "run" else ()
    file = bundle / "graphs" / "segment_unet.onnx.data"
    os.truncate(file, 1000)
    assert f"{file} has 1000 bytes" in refused(command, bundle, *options, with_out=command == "run")
    file.unlink()
    assert f"{file} is missing" in refused(command, bundle, *options, with_out=command == "run")


def test_a_manifest_of_a_newer_schema(refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    # A newer schema has fields that this one does not know.
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99, "novelty": 1}))
    for sentence in (refused("run", bundle, *kept_clip.inputs), refused("inspect", bundle, with_out=False)):
        assert "schema version 99" in sentence
        assert "update amodal" in sentence


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": "x"}'])
def test_a_manifest_that_is_none(content: str, refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    (bundle / "manifest.json").write_text(content)
    assert str(bundle / "manifest.json") in refused("run", bundle, *kept_clip.inputs)


def test_a_folder_that_is_no_bundle(refused: Refused, kept_clip: Clip) -> None:
    assert "is not a bundle" in refused("run", "nowhere", *kept_clip.inputs)
    assert "is not a finished bundle" in refused("run", kept_clip.frames, *kept_clip.inputs)
    assert "is not a finished bundle" in refused("inspect", kept_clip.frames, with_out=False)


def test_a_bundle_without_depth_or_without_the_stage(refused: Refused, bundle: Path, kept_clip: Clip) -> None:
    inputs = ("--frames", kept_clip.frames, "--masks", kept_clip.masks)
    sentence = refused("run", bundle, *inputs)
    assert "has no depth component" in sentence
    assert "--depth DIR" in sentence
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["tasks"]["complete"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "has no complete stage" in refused("run", bundle, *kept_clip.inputs, "--stage", "both")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--backend", "tpu"), "backend 'tpu' is unknown to this version; expected auto or one of onnxruntime"),
        (("--device", "toaster"), "no device 'toaster'"),
        (("--guidance", "a:b"), "'a:b' is not a range; expected MIN:MAX"),
        (("--guidance", "1:"), "'1:' is not a range"),
        (("--guidance", "1:2:3"), "'1:2:3' is not a range"),
        (("--guidance", "nan"), "(--guidance)"),
        (("--steps", "0"), "(--steps)"),
        (("--samples", "0"), "0 samples: expected 1 or more (--samples)"),
        (("--samples", "-1"), "(--samples)"),
        (("--samples", "many"), "'many' is not a valid integer"),
        (("--samples", "2", "--seed", str(2**64 - 1)), "out of range"),
        (("--steps", "many"), "'many' is not a valid integer"),
        (("--fps", "0"), "(--fps)"),
        (("--fps", "nan"), "(--fps)"),
        (("--churn", "-1"), "expected a total >= 0"),
        (("--churn-sigmas", "5:1"), "MIN <= MAX"),
        (("--churn-noise", "inf"), "finite noise >= 0"),
        (("--decode-chunk", "0"), "(--decode-chunk)"),
        (("--threads", "0"), "(--threads)"),
        (("--seed", str(2**64)), "out of range"),
        (("--context", "sequence"), "--context sequence"),
        (("--context", "nonsense"), "'nonsense' is not one of"),
        (("--stage", "third"), "'third' is not one of"),
        (("--nonsense",), "No such option"),
    ],
)
def test_an_option_that_makes_no_sense(
    options: tuple[str, ...], expected: str, refused: Refused, toy_bundle: Path, kept_clip: Clip
) -> None:
    sentence = refused("run", toy_bundle, *kept_clip.inputs, *options)
    assert expected in sentence


def test_settings_are_checked_before_anything_runs(
    refused: Refused, toy_with_depth: tuple[Path, Any], kept_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amodal.runtime.execution.components import Components

    monkeypatch.setattr(Components, "use", lambda *_: pytest.fail("a component was loaded"))
    inputs = ("run", toy_with_depth[0], "--frames", kept_clip.frames, "--masks", kept_clip.masks)
    for options in (
        *(("--steps", 0), ("--guidance", "inf"), ("--context", "sequence"), ("--seed", 2**64), ("--samples", 0)),
        *(("--pad", "--steps", 0), ("--samples", 3, "--fps", 0)),
    ):
        refused(*inputs, *options)


def test_samples_and_padding_without_the_stage_that_has_them(
    refused: Refused, toy_bundle: Path, kept_clip: Clip
) -> None:
    alone = ("run", toy_bundle, *kept_clip.inputs, "--stage", "complete", "--amodal", kept_clip.masks)
    assert "--samples needs the segment stage" in refused(*alone, "--samples", 2)
    assert "--pad needs the segment stage" in refused(*alone, "--pad")


@pytest.mark.parametrize("option", ["--propagate", "--no-propagate"])
def test_propagation_without_the_stage_that_has_it(
    option: str, refused: Refused, toy_bundle: Path, kept_clip: Clip
) -> None:
    assert "--propagate is about RGB" in refused("run", toy_bundle, *kept_clip.inputs, "--stage", "segment", option)


def test_frames_too_small_to_pad(refused: Refused, toy_bundle: Path, clip: Clip) -> None:
    for folder in (clip.frames, clip.masks, clip.depth):
        for name in NAMES:
            Image.open(folder / name).crop((10, 20, 40, 23)).save(folder / name)
    sentence = refused("run", toy_bundle, *clip.inputs, "--pad")
    assert "frames of 3x30 cannot be padded by a quarter" in sentence


def test_missing_arguments(refused: Refused) -> None:
    assert "Missing argument 'BUNDLE'. See `amodal run --help`" in refused("run", with_out=False)
    assert "Missing option '--frames'" in refused("run", "bundle")
    assert "No such command 'walk'. See `amodal --help`" in refused("walk", with_out=False)


@pytest.mark.parametrize("command", ["latency", "memory", "fidelity", "peers", "roofline", "scaling", "all"])
@pytest.mark.parametrize(("option", "value"), [("guidance", "nan"), ("guidance", "-inf"), ("churn", "inf")])
def test_numbers_that_are_not_finite_in_a_benchmark(command: str, option: str, value: str, refused: Refused) -> None:
    pytest.importorskip("psutil")
    sentence = refused("bench", command, "default", f"--{option}={value}")
    assert f"{option} {value} is not finite; expected a number (--{option})" in sentence


@pytest.mark.parametrize("size", [0, 500, 4000])
def test_a_disk_that_fills_up(
    size: int, refused: Refused, toy_bundle: Path, kept_clip: Clip, largest_file: Callable[[int], Any]
) -> None:
    with largest_file(size):
        sentence = refused("run", toy_bundle, *kept_clip.inputs, *QUICK, "--stage", "segment")
    assert "could not be written" in sentence
    assert "nothing was left behind" in sentence


def test_a_disk_that_is_full_only_when_it_is_synced(
    refused: Refused, toy_bundle: Path, kept_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    options = (*QUICK, "--stage", "segment", "--no-overlay")
    assert "the disk is full" in refused("run", toy_bundle, *kept_clip.inputs, *options)


def test_memory_that_runs_out(
    refused: Refused, toy_bundle: Path, kept_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amodal.runtime.model import Model

    def starve(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9.00 TiB")

    monkeypatch.setattr(Model, "run", starve)
    sentence = refused("run", toy_bundle, *kept_clip.inputs)
    assert "9.00 TiB" in sentence
    assert "--memory sequential" in sentence


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_that_is_full(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full, start("inspect", toy_bundle, "--json", stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "Error: standard output: No space left on device.\n"
