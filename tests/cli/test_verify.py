"""`amodal verify`: what it prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from amodal.runtime.families import Bundle

from ..stand_ins import StandIn
from .conftest import Outcome, issue

QUICK = ("--steps", "1", "--threads", "1")


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages and depth in half precision; not to be changed."""
    for module in ("torch", "diffusers", "transformers", "onnx_ir"):
        pytest.importorskip(module)
    bundle = tmp_path_factory.mktemp("half") / "bundle"
    options = ("--size", "64x128", "--frames", "2", "--precision", "fp16", "--check", "none")
    outcome = issue("export", "--random", "tiny", *options, "-o", bundle)
    assert outcome.code == 0, outcome.err
    return bundle


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for TensorRT, and the folder for its engines."""
    StandIn(monkeypatch, tmp_path / "calls")
    return tmp_path / "engines"


def lines(outcome: Outcome) -> dict[str, list[str]]:
    """The rows of all tables, by their first word."""
    return {words[0]: words[1:] for line in outcome.out.splitlines() if (words := line.split())}


@pytest.mark.slow
def test_a_right_bundle_is_verified(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "off")  # what it is held against runs plain graphs
    outcome = issue("verify", toy_bundle, "--steps", "2", "--threads", "1")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    rows = lines(outcome)
    assert rows["segment_unet"] == ["ok", "fp32", "2", "0.0e+00", "1e-05", "-"]
    assert rows["segment"] == ["ok", "0.0e+00", "1e-04", "1.0000", "0", "(0.000)"]
    assert rows["complete"] == ["ok", "0.0e+00", "1e-04", "-", "0", "(0.000)"]
    assert outcome.out.endswith(f"{toy_bundle}: verified.\n")


@pytest.mark.slow
def test_half_precision_and_depth_are_measured_tensor_by_tensor(half_bundle: Path) -> None:
    outcome = issue(
        "verify", half_bundle, "--components", "depth,vae_decoder,segment_unet_conditioner", *QUICK, "--ranges"
    )
    assert outcome.code == 0, outcome
    rows = lines(outcome)
    for key, calls in (("depth", "1"), ("vae_decoder", "2")):
        result, arithmetic, found, difference, limit, greatest = next(
            line.split()[1:] for line in outcome.out.splitlines() if line.startswith(f"{key} ") and "fp16" in line
        )
        assert (result, arithmetic, found, limit) == ("ok", "fp16", calls, "5e-03")
        assert 0 < float(difference) < 5e-3
        assert 1 < float(greatest) < 1000
    assert rows["segment_unet_conditioner"][:2] == ["ok", "fp32"]
    assert outcome.out.count("decoder.") == 10
    assert "Note: On a CPU" in outcome.out
    assert "latents" not in outcome.out


@pytest.mark.slow
def test_json_is_all_that_is_printed(half_bundle: Path) -> None:
    outcome = issue("verify", half_bundle, "--components", "image_encoder", *QUICK, "--json", "--seed", "3")
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    assert (found["ok"], found["seed"], found["steps"], found["stages"]) == (True, 3, 1, [])
    (row,) = found["components"]
    assert row["component"] == "image_encoder"
    assert len(row["ranges"]) == 10
    assert outcome.err == ""


@pytest.mark.slow
def test_missing_engines_fail_until_they_are_built(toy_bundle: Path, stand_in: Path) -> None:
    options = ("--backend", "tensorrt", "--target", "this", "--engine-dir", stand_in)
    outcome = issue("verify", toy_bundle, *options)
    assert outcome.code == 1
    assert outcome.err == ""
    assert "FAIL vae_encoder: there is no engine of vae_encoder" in outcome.out
    assert outcome.out.endswith(": FAILED.\n")
    quiet = issue("verify", toy_bundle, *options, "-q")
    assert (quiet.code, quiet.out) == (1, "")
    assert len(quiet.err.splitlines()) == len(Bundle(toy_bundle).manifest.components)
    built = issue("verify", toy_bundle, *options, "--build", "--components", "vae_encoder")
    assert built.code == 0, built
    assert lines(built)["vae_encoder"][:2] == ["ok", "built"]
    assert "Note: No engine was executed" in built.out
    found = issue("verify", toy_bundle, *options, "--json")
    assert found.code == 1
    assert [row["component"] for row in json.loads(found.out)["engines"] if row["ok"]] == ["vae_encoder"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--components", "vae"), "vae is not in"),
        (("--components", ","), "nothing is not in"),
        (("--backend", "cuda"), "backend cuda cannot be verified; expected one of onnxruntime, tensorrt_rtx"),
        (("--build",), "--build and --engine-dir are for engines"),
        (("--backend", "tensorrt", "--target", "sm86"), "builds for the GPU of the machine"),
    ],
)
def test_bad_options_are_one_sentence(
    toy_bundle: Path, stand_in: Path, refused: Callable[..., str], options: Any, words: str
) -> None:
    assert words in refused("verify", toy_bundle, *options, with_out=False)


def test_a_bundle_that_is_not_there_is_one_sentence(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "is not a bundle" in refused("verify", tmp_path / "none", with_out=False)


def test_a_damaged_file_is_named(toy_bundle: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    import shutil

    shutil.copytree(toy_bundle, tmp_path / "bundle")
    file = Bundle(tmp_path / "bundle").files("segment_unet")[1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "segment_unet.onnx.data differs from the hash" in refused("verify", tmp_path / "bundle", with_out=False)


def test_help_shows_examples() -> None:
    outcome = issue("verify", "--help")
    assert outcome.code == 0
    assert "amodal verify bundle --backend tensorrt_rtx --target sm86 --build" in outcome.out
    assert "verify" in issue("--help").out
