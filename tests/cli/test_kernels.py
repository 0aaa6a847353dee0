"""What the commands say of kernels, and what they make of the setting."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from amodal.runtime.backends.onnxruntime.kernels import FUSED, find_kernels

from .conftest import QUICK, Clip, issue


@pytest.fixture
def unfused(toy_bundle: Path, tmp_path: Path) -> Path:
    """A bundle as it was before there were fused graphs."""
    from amodal.runtime.bundle.reading import Bundle

    path = tmp_path / "before"
    shutil.copytree(toy_bundle, path)
    manifest = Bundle(path).manifest
    entries = {
        key: entry.model_copy(update={"files": tuple(f for f in entry.files if not f.path.endswith(FUSED))})
        for key, entry in manifest.components.items()
    }
    (path / "manifest.json").write_text(manifest.model_copy(update={"components": entries}).model_dump_json())
    for twin in path.glob(f"graphs/*{FUSED}"):
        twin.unlink()
    return path


def test_inspect_counts_fused_graphs(unfused: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = find_kernels()
    said = here.note if here.library is not None else f"not used here ({here.note})"
    out = issue("inspect", "default", "--no-verify").out
    assert re.search(rf"CPU kernels +7 of 9 graphs are fused for them; {re.escape(said)}\n", out)
    monkeypatch.setenv("AMODAL_KERNELS", "off")
    out = issue("inspect", "default", "--no-verify").out
    assert "7 of 9 graphs are fused for them; not used here (AMODAL_KERNELS=off)" in out
    assert re.search(r"CPU kernels +no graph is fused for them\n", issue("inspect", unfused).out)


@pytest.mark.slow
def test_a_bundle_from_before_runs(unfused: Path, kept_clip: Clip, tmp_path: Path) -> None:
    outcome = issue("run", unfused, *kept_clip.inputs, *QUICK, "-o", tmp_path / "out", "--quiet")
    assert outcome.code == 0, outcome


def test_an_unknown_setting_is_one_sentence(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "fast")
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "AMODAL_KERNELS=fast is unknown; expected one of off, avx512, avx2, plain, or unset it." in " ".join(
        outcome.err.split()
    )
    assert not (tmp_path / "out").exists()
    assert "AMODAL_KERNELS=fast is unknown" in " ".join(issue("doctor").out.split())


def test_doctor_tells_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "off")
    assert "kernels for the CPU: not used here (AMODAL_KERNELS=off)" in " ".join(issue("doctor").out.split())
