"""What ONNX Runtime's CUDA provider makes of every graph: all of it on the GPU, and the U-Net's step one CUDA graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from amodal.export.checkpoints.checkpoint import random_checkpoint
from amodal.export.depth_anything.network import random_depth
from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export
from amodal.export.graph.variants import VARIANTS
from amodal.export.plan import ComponentPlan
from amodal.runtime.families import Bundle

from .conftest import Measure
from .sparse import save_sparse

TINY, FRAMES = (64, 128), 8
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
COPIES = ("upload", "download", "wait", "allocation", "release", "pinned", "copy on the device", "fill")


def planned(kind: Any, size: tuple[int, int], frames: int, depth: str, **settings: Any) -> tuple[ComponentPlan, ...]:
    stages: Any = {"segment": random_checkpoint(kind, "segment")}
    chosen = ExportSettings(size=size, frames=frames, **settings)
    return plan_export(stages, random_depth(depth), chosen).components


def job_of(component: ComponentPlan, folder: Path, **more: Any) -> dict[str, Any]:
    """A job for `measure`, with the graph written but for its weights."""
    file = save_sparse(component.write(component.size), folder / f"{component.key}.onnx")
    facts = {"kind": component.kind, "precision": component.precision, "repeated": component.repeated}
    return {"graph": str(file), "sizes": {"rows": 2, "frames": FRAMES, "steps": 25}, **facts, **more}


def launches(counts: dict[str, int], prefix: str = "") -> int:
    return sum(n for name, n in counts.items() if name.startswith(f"{prefix}launch"))


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def tiny(request: pytest.FixtureRequest, measure: Measure, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each component's tiny graph for CUDA takes, by kind."""
    folder = tmp_path_factory.mktemp("graphs")
    made = planned("tiny", TINY, FRAMES, "tiny", variant="cuda", precision=request.param)
    return dict(zip([c.kind for c in made], measure([job_of(c, folder) for c in made]), strict=True))


def test_no_node_of_any_component_is_left_on_the_cpu(tiny: dict[str, Any]) -> None:
    assert {kind: (found.error, list(found.providers)) for kind, found in tiny.items()} == {
        kind: ("", [CUDA])
        for kind in ("image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder", "depth")
    }
    for found in tiny.values():
        assert not [name for name in found.described if name.endswith("_on_cpu") or "refused" in name]


def test_a_call_copies_nothing_and_waits_for_nothing(tiny: dict[str, Any]) -> None:
    for kind, found in tiny.items():
        for counts in found.counts[1:]:
            assert not {name: counts[name] for name in ("download", "wait") if counts.get(name)}, kind


def test_a_step_is_recorded_once_without_illegal_calls_and_then_only_launched(tiny: dict[str, Any]) -> None:
    first, *others = tiny["unet"].counts
    assert first["graph recorded"] == first["graph launch"] == 1
    assert not [name for name in first if name.startswith("illegal")]
    assert 0 < launches(first, "recorded ") < 1600
    for counts in others:
        assert counts["graph launch"] == 1
        assert not launches(Counter(counts) - Counter({"graph launch": 1}))
        assert not [name for name in COPIES if counts.get(name)]


def test_activations_are_held_once_and_but_for_the_steps_given_back(tiny: dict[str, Any]) -> None:
    for kind, found in tiny.items():
        assert len(set(found.peak)) == 1, kind
        assert found.arena == (found.peak if kind == "unet" else [0, 0, 0]), kind


@pytest.mark.parametrize("options", [{"nhwc": False}, {"attention": 16}], ids=str)
def test_other_options_leave_the_step_one_graph(options: Any, measure: Measure, tmp_path: Path) -> None:
    made = planned("tiny", TINY, FRAMES, "tiny", variant="cuda", precision="fp16")
    (found,) = measure([job_of(next(c for c in made if c.repeated), tmp_path, options=options)])
    assert (found.error, list(found.providers)) == ("", [CUDA])
    assert found.counts[0]["graph recorded"] == 1


def test_without_a_cuda_graph_no_memory_is_given_back_between_steps(measure: Measure, tmp_path: Path) -> None:
    made = planned("tiny", TINY, FRAMES, "tiny", variant="cuda", precision="fp16")
    options = {"cuda_graph": False}
    (found,) = measure([job_of(next(c for c in made if c.repeated), tmp_path, options=options)])
    for counts in found.counts[1:]:
        assert launches(counts) > 100
        assert not {name: counts[name] for name in ("allocation", "release", "wait") if counts.get(name)}


def test_threads_share_one_recording(measure: Measure, tmp_path: Path) -> None:
    """ONNX Runtime keeps one graph per thread: warmed up in one and called in another, it would record again."""
    made = planned("tiny", TINY, FRAMES, "tiny", variant="cuda", precision="fp16")
    (found,) = measure([job_of(next(c for c in made if c.repeated), tmp_path, threads=3, calls=2)])
    assert [counts.get("graph recorded", 0) for counts in found.counts] == [1, 0, 0, 0, 0, 0]
    assert len(set(found.arena)) == 1


def test_a_node_without_a_kernel_is_named_with_its_component(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = replace(VARIANTS["cuda"], name="former", group_norm="instance")
    monkeypatch.setitem(VARIANTS, "former", former)
    made = planned("tiny", TINY, FRAMES, "tiny", variant="former", precision="fp16")
    (found,) = measure([job_of(next(c for c in made if c.repeated), tmp_path)])
    assert found.error.startswith("BackendError: component unet: onnxruntime 1.")
    assert "has no CUDA kernels for 67 InstanceNormalization" in found.error
    assert found.error.endswith('export the bundle again with `variant="cuda"`.')
    assert not found.counts


@pytest.fixture(scope="module")
def small_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One stage for CUDA in half precision."""
    stages = {"segment": random_checkpoint("tiny", "segment")}
    folder = tmp_path_factory.mktemp("bundle") / "cuda"
    return exporter(folder, stages, size=TINY, frames=FRAMES, variant="cuda", precision="fp16")


def test_between_the_first_step_and_the_last_nothing_is_copied_allocated_or_waited_for(
    measure: Measure, small_bundle: Path
) -> None:
    (found,) = measure([{"graph": str(small_bundle), "bundle": True, "calls": 6}])
    assert found.error == ""
    _, _, *steps = found.counts  # what came before the first step, and the first, which records
    assert len(steps) == 4
    for counts in steps:
        asked = {name: n for name, n in counts.items() if n and not name.startswith("cuda")}
        assert asked == {"graph launch": 1}


def test_the_default_bundle_runs_on_the_gpu_alone(measure: Measure) -> None:
    bundle = Bundle("default")
    jobs = []
    for key, entry in bundle.manifest.components.items():
        facts = {"kind": entry.kind, "precision": entry.precision, "repeated": entry.repeated}
        jobs.append({"graph": str(bundle.files(key)[0]), "sizes": {"rows": 2, "frames": 8, "steps": 25}, **facts})
    for job, found in zip(jobs, measure(jobs), strict=True):
        assert found.error == "", job
        for counts in found.counts[1:]:
            assert not {name: counts[name] for name in ("upload", "download", "wait") if counts.get(name)}, job
        if job["repeated"]:
            assert found.counts[0]["graph recorded"] == 1
