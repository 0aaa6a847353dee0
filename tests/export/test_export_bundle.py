"""Whole exports: what is shared, what is recorded, and what a wrong graph does."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("diffusers")

from amodal.engines.compare import TOLERANCES  # noqa: E402
from amodal.export import bundle, check  # noqa: E402
from amodal.export.bundle import export_bundle  # noqa: E402
from amodal.export.checkpoints.checkpoint import random_checkpoint  # noqa: E402
from amodal.export.depth_anything.network import random_depth  # noqa: E402
from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export  # noqa: E402
from amodal.export.families.diffusion_vas.reference import streamed  # noqa: E402
from amodal.export.fusing import write_fused  # noqa: E402
from amodal.export.graph import blocks  # noqa: E402
from amodal.runtime.backends.onnxruntime.kernels import find_kernels  # noqa: E402
from amodal.runtime.bundle.reading import Bundle  # noqa: E402
from amodal.runtime.errors import ExportError, InputError  # noqa: E402


def stages(**seeds: int) -> dict[Any, Any]:
    return {stage: random_checkpoint("tiny", stage, seed) for stage, seed in seeds.items()}


def settings(**changes: Any) -> ExportSettings:
    return ExportSettings(**{"size": (64, 128), "frames": 2, "precision": "fp32", **changes})


def export(out: Path, *planned: Any, **options: Any) -> list[bundle.Exported]:
    return export_bundle(out, plan_export(*planned, **options))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_stages_share_what_is_equal_and_every_difference_is_recorded(precision: Any, tmp_path: Path) -> None:
    depth = random_depth("tiny")
    rows = export(tmp_path / "b", stages(segment=0, complete=0), depth, settings(precision=precision))
    manifest = Bundle(tmp_path / "b").manifest
    assert sorted(manifest.components) == sorted(
        ["image_encoder", "vae_encoder", "vae_decoder", "depth"]
        + [f"{stage}_{kind}" for stage in ("segment", "complete") for kind in ("unet", "unet_conditioner")]
    )
    for kind in ("image_encoder", "vae_encoder", "vae_decoder"):
        assert {e.components[kind] for e in manifest.tasks.values()} == {kind}
    for row in rows:
        assert row.entry.difference is not None
        assert 0 < row.entry.difference <= TOLERANCES[precision]
        for file in row.entry.files:
            data = (tmp_path / "b" / file.path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert manifest.config["noise_dtype"] == {"fp32": "float32", "fp16": "float16"}[precision]


@pytest.mark.slow
def test_stages_with_other_weights_share_nothing(tmp_path: Path) -> None:
    export(tmp_path / "b", stages(segment=0, complete=1), settings=settings(check="none"))
    manifest = Bundle(tmp_path / "b").manifest
    used = [set(entry.components.values()) for entry in manifest.tasks.values()]
    assert not used[0] & used[1]


@pytest.mark.slow
def test_a_large_size_is_compared_at_a_small_one_and_leaves_no_twin(tmp_path: Path) -> None:
    rows = export(tmp_path / "b", stages(segment=0), settings=settings(size=(192, 256)))
    assert {row.check_size for row in rows} == {(64, 128)}
    assert not list((tmp_path / "b" / "graphs").glob("check_*"))


@pytest.mark.slow
def test_two_exports_write_the_same_bytes(tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        export(tmp_path / name, stages(segment=0), settings=settings(check="none"))
        hashes.append({f.path: f.sha256 for c in Bundle(tmp_path / name).manifest.components.values() for f in c.files})
    assert hashes[0] == hashes[1]


def test_a_graph_that_is_slightly_wrong_ends_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(g: Any, x: Any) -> Any:
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.scalar(1.001))))

    monkeypatch.setattr(blocks, "silu", wrong)
    with pytest.raises(ExportError, match=r"differs from its torch module by .* more than 1e-05"):
        export(tmp_path / "b", stages(segment=0), settings=settings())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_kernels().library is None, reason="no kernels here")
@pytest.mark.parametrize("size", [(64, 128), (192, 256)])  # compared at its own size, and at a smaller one
def test_a_fused_twin_that_computes_something_else_ends_the_export(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_broken(graph: Path) -> Path | None:
        twin = write_fused(graph)
        if twin is not None:
            model = onnx.load(twin, load_external_data=False)
            for node in model.graph.node:
                if node.op_type == "GroupNorm":
                    (silu,) = (a for a in node.attribute if a.name == "silu")
                    silu.i = 1 - silu.i
            twin.write_bytes(model.SerializeToString())
        return twin

    for module in (bundle, check):
        monkeypatch.setattr(module, "write_fused", write_broken)
    with pytest.raises(ExportError, match=r"fused graph of .* differs from its torch module by"):
        export(tmp_path / "b", stages(segment=0), settings=settings(size=size))
    assert not list(tmp_path.iterdir())


def test_a_size_that_does_not_fit_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"100x128 does not fit: .* multiples of 64; the nearest are 64x128 and 128x128"
    ):
        export(tmp_path / "b", stages(segment=0), settings=settings(size=(100, 128)))


def test_stages_with_different_noise_schedules_are_refused(tmp_path: Path) -> None:
    both = stages(segment=0, complete=0)
    other = {**both["complete"].scheduler, "sigma_max": 80.0}
    both["complete"] = dataclasses.replace(both["complete"], scheduler=other)
    with pytest.raises(InputError, match="do not fit together: the noise schedule"):
        export(tmp_path / "b", both, settings=settings())


def test_a_streamed_module_gives_what_the_loaded_one_gives_and_stays_empty() -> None:
    network = random_checkpoint("tiny", "segment").vae
    frames = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.load().encode(frames).latent_dist.mode()
    module = network.build()
    with streamed(module, network.weights_for(module)) as live:
        got = live.encode(frames).latent_dist.mode()
    assert torch.equal(got, expected)
    assert all(parameter.is_meta for parameter in module.parameters())
