"""`amodal export --family sameo`, and engines of its bundles."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tests.places import SHARED

from amodal.cli import main
from amodal.export.bundle import export_bundle
from amodal.export.families.sameo.checkpoint import random_checkpoint, read_sameo
from amodal.export.families.sameo.plan import SameoSettings, plan_sameo
from amodal.runtime.bundle.reading import read_manifest

CHECKPOINT = SHARED / "sameo" / "efficientsam_small.pt"


@pytest.mark.parametrize("variant", ["cpu", "engine", "cuda"])
def test_every_variant_computes_what_torch_does(tmp_path: Path, variant: str) -> None:
    settings = SameoSettings(precision="fp32", variant=variant)
    rows = export_bundle(tmp_path / "bundle", plan_sameo(random_checkpoint("tiny"), settings))
    assert all(row.entry.difference is not None and row.entry.difference <= 1e-5 for row in rows)
    assert read_manifest(tmp_path / "bundle").config["height"] == 64


def test_weights_in_half_precision_take_about_half(tmp_path: Path) -> None:
    sizes = []
    for stored in ("fp16", "fp32"):
        settings = SameoSettings(precision="fp32", stored=stored)  # type: ignore[arg-type]
        export_bundle(tmp_path / stored, plan_sameo(random_checkpoint("tiny"), settings))
        sizes.append(sum(file.stat().st_size for file in (tmp_path / stored / "graphs").glob("*.data")))
    assert sizes[0] <= 0.75 * sizes[1]  # what magnifies rounding stays in float32


def test_attention_over_many_cells_is_taken_in_pieces_on_a_cpu(tmp_path: Path) -> None:
    counts = {}
    for variant in ("cpu", "engine"):
        settings = SameoSettings(size=(512, 512), precision="fp32", variant=variant, check="none")
        export_bundle(tmp_path / variant, plan_sameo(random_checkpoint("tiny"), settings))
        graph = onnx.load(tmp_path / variant / "graphs" / "image_encoder.onnx", load_external_data=False).graph
        counts[variant] = sum(node.op_type == "Softmax" for node in graph.node)
    assert counts["engine"] == 2  # one for each block
    assert counts["cpu"] >= 4 * counts["engine"]


@pytest.mark.slow
@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="the recorded checkpoint is not here")
def test_tensorrt_for_rtx_compiles_the_graphs(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from amodal.engines.build import BuildSettings, build_engines
    from amodal.runtime.families import Bundle

    export_bundle(tmp_path / "bundle", plan_sameo(read_sameo(CHECKPOINT), SameoSettings(check="none")))
    rows = build_engines(Bundle(tmp_path / "bundle"), BuildSettings(target="sm86"))
    assert {row.record.key.component for row in rows} == {"image_encoder", "mask_decoder"}
    assert all(row.file.stat().st_size for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to export: give --checkpoint efficient_sam_vits.pt, or --random ti"),
        (("--random", "ti", "--checkpoint", "x.pt"), "--random makes its own weights; omit --checkpoint"),
        (("--checkpoint", "nowhere.pt"), "There is no checkpoint at nowhere.pt"),
        (("--random", "tiny", "--size", "60x128"), "this checkpoint takes multiples of 8; try 56x128"),
    ],
)
def test_what_cannot_be_exported_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--family", "sameo", *arguments, "-o", str(tmp_path / "bundle")])
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_family_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--family", "sam", "-o", "nowhere"])
    assert "there is no family 'sam'; expected one of diffusion-vas, sameo" in " ".join(capsys.readouterr().err.split())
