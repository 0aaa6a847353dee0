"""What ONNX Runtime's CUDA provider makes of every graph: all of it on the GPU, and the U-Net's step one CUDA graph."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from amodal.export.graph.variants import VARIANTS
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.plan import plan_memory
from amodal.runtime.memory.recorded import MemoryRecord

from .graphs import FRAMES, SIZES, job_of, launches, planned, planned_sameo
from .prepare import Measure
from .traffic import between_kernels, bytes_moved

pytestmark = pytest.mark.slow  # seconds each, and only of interest to changes of graphs and of the GPU path

CUDA = "CUDAExecutionProvider"
COPIES = ("upload", "download", "wait", "allocation", "release", "pinned", "copy on the device", "fill")


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def tiny(request: pytest.FixtureRequest, measure: Measure, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each component's tiny graph for CUDA takes, by kind."""
    folder = tmp_path_factory.mktemp("graphs")
    made = planned("tiny", variant="cuda", precision=request.param)
    return dict(zip(made, measure([job_of(c, folder) for c in made.values()]), strict=True))


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
        assert not launches(counts)
        assert not [name for name in COPIES if counts.get(name)]


def test_activations_are_held_once_and_but_for_the_steps_given_back(tiny: dict[str, Any]) -> None:
    for kind, found in tiny.items():
        assert len(set(found.peak)) == 1, kind
        assert found.arena == (found.peak if kind == "unet" else [0, 0, 0]), kind


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["tiny", "ti"])
def test_sameo_runs_on_the_gpu_alone_and_within_bounds(
    kind: Any, precision: Any, measure: Measure, tmp_path: Path
) -> None:
    made = planned_sameo(kind, variant="cuda", precision=precision)
    # Launches, allocations and, in half precision, bytes of activations of a call, here of 1 picture or 16 boxes.
    most = {"image_encoder": (300, 3, 26e6), "mask_decoder": (200, 24, 310e6)}
    for name, found in zip(made, measure([job_of(c, tmp_path) for c in made.values()]), strict=True):
        assert (found.error, list(found.providers)) == ("", [CUDA]), name
        for counts in found.counts[1:]:
            assert not {what: counts[what] for what in ("download", "wait") if counts.get(what)}, name
            assert 0 < launches(counts) <= most[name][0], name
            assert counts.get("allocation", 0) == counts.get("release", 0) <= most[name][1], name
        assert len(set(found.peak)) == 1, name
        assert found.peak[0] <= most[name][2] * (1 if precision == "fp16" else 2), name
        assert found.arena == [0, 0, 0], name


@pytest.mark.parametrize("options", [{"nhwc": False}, {"attention": 16}, {"fuse_bias": True}], ids=str)
def test_other_options_leave_the_step_one_graph(options: Any, measure: Measure, tmp_path: Path) -> None:
    (found,) = measure([job_of(planned("tiny", variant="cuda")["unet"], tmp_path, options=options)])
    assert (found.error, list(found.providers)) == ("", [CUDA])
    assert found.counts[0]["graph recorded"] == 1


def test_a_context_of_all_frames_leaves_it_one_graph(measure: Measure, tmp_path: Path) -> None:
    (found,) = measure([job_of(planned("tiny", variant="cuda", context="sequence")["unet"], tmp_path)])
    assert (found.error, list(found.providers)) == ("", [CUDA])
    assert found.counts[0]["graph recorded"] == 1
    assert not [name for name in found.counts[0] if name.startswith("illegal")]


def test_without_a_cuda_graph_no_memory_is_given_back_between_steps(measure: Measure, tmp_path: Path) -> None:
    options = {"cuda_graph": False}
    (found,) = measure([job_of(planned("tiny", variant="cuda")["unet"], tmp_path, options=options)])
    for counts in found.counts[1:]:
        assert launches(counts) > 100
        assert not {name: counts[name] for name in ("allocation", "release", "wait") if counts.get(name)}


def test_threads_share_one_recording(measure: Measure, tmp_path: Path) -> None:
    """ONNX Runtime keeps one graph per thread: warmed up in one and called in another, it would record again."""
    (found,) = measure([job_of(planned("tiny", variant="cuda")["unet"], tmp_path, threads=3, calls=2)])
    assert [counts.get("graph recorded", 0) for counts in found.counts] == [1, 0, 0, 0, 0, 0]
    assert len(set(found.arena)) == 1


def test_two_in_two_threads_do_not_disturb_each_others_recording(measure: Measure, tmp_path: Path) -> None:
    """CUDA refuses to allocate and to release anywhere while one of them records."""
    (found,) = measure([job_of(planned("tiny", variant="cuda")["unet"], tmp_path, together=2, calls=3)])
    assert found.error == ""
    (counts,) = found.counts
    assert counts["graph recorded"] == 6
    assert not [name for name in counts if name.startswith("illegal")]


def test_memory_that_runs_out_is_said_in_a_sentence(measure: Measure, tmp_path: Path) -> None:
    """On a GPU that is full while a component runs, and on one that is full before."""
    job = job_of(planned("tiny", variant="cuda", precision="fp16")["vae_decoder"], tmp_path)
    found = measure([{**job, "device_bytes": 3_000_000}, {**job, "device_bytes": 1_000_000}])
    start, end = "MemoryBudgetError: GPU memory ran out on the RTX 3090 (", "); close other programs, or run with"
    running = found[0].error.removeprefix(start).partition(end)[0]
    assert re.fullmatch(r"component vae_decoder: node \S+: Failed to allocate memory for .* \d+", running)
    assert re.match(r"MemoryBudgetError: .* 1\.6 MB .* weights alone, and 1\.0 MB are free on the", found[1].error)


def test_a_limit_holds_for_weights_and_activations_together(measure: Measure, tmp_path: Path) -> None:
    job = job_of(planned("tiny", variant="cuda", precision="fp16")["vae_decoder"], tmp_path)
    (free,) = measure([job])
    need = free.weights + max(free.peak)
    limits = [need + 2**20, need - 2**18, need // 2, free.weights // 2]
    enough, *others = measure([{**job, "vram": limit} for limit in limits])
    assert enough.error == ""
    assert enough.weights + max(enough.peak) <= limits[0]
    for found in others:
        assert found.error.startswith("MemoryBudgetError: ")
        assert "smaller than requested bytes" in found.error or "for its weights alone" in found.error


def test_what_a_cuda_graph_keeps_counts_for_others(measure: Measure, tmp_path: Path) -> None:
    job = job_of(planned("tiny", variant="cuda", precision="fp16")["unet"], tmp_path)
    (found,) = measure([job])
    weights = sum((tmp_path / f"segment_unet.onnx{end}").stat().st_size for end in ("", ".data"))
    assert found.held == weights + found.arena[-1]


def test_a_node_without_a_kernel_is_named_with_its_component(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = replace(VARIANTS["cuda"], name="former", group_norm="instance")
    monkeypatch.setitem(VARIANTS, "former", former)
    (found,) = measure([job_of(planned("tiny", variant="former")["unet"], tmp_path)])
    assert found.error.startswith("BackendError: component unet: onnxruntime 1.")
    assert "has no CUDA kernels for 67 InstanceNormalization" in found.error
    assert found.error.endswith("export the bundle again with `amodal export --variant cuda`.")
    assert not found.counts


@pytest.fixture(scope="module")
def small_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One stage for CUDA in half precision."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": random_checkpoint("tiny", "segment")}
    folder = tmp_path_factory.mktemp("bundle") / "cuda"
    return exporter(folder, stages, size=(64, 128), frames=FRAMES, variant="cuda", precision="fp16")


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
        jobs.append({"graph": str(bundle.files(key)[0]), "sizes": SIZES, **facts})
    for job, found in zip(jobs, measure(jobs), strict=True):
        assert found.error == "", job
        for counts in found.counts[1:]:
            assert not {name: counts[name] for name in ("upload", "download", "wait") if counts.get(name)}, job
        if job["repeated"]:
            assert found.counts[0]["graph recorded"] == 1


@pytest.fixture(scope="module")
def recorded(measure: Measure) -> tuple[MemoryRecord, list[int]]:
    """The record of the default bundle, and the peaks of its first stage: all loaded, and one at a time."""
    (found,) = measure([{"graph": str(Bundle("default").path), "record": True, "calls": 2}])
    assert found.error == ""
    return MemoryRecord.model_validate(found.recorded), found.peak


def test_what_is_recorded_is_what_the_driver_was_asked_for(measure: Measure, recorded: Any) -> None:
    bundle, (record, _) = Bundle("default"), recorded
    jobs, asked = [], []
    for key, entry in bundle.manifest.components.items():
        facts = {"kind": entry.kind, "precision": entry.precision, "repeated": entry.repeated}
        for profile in bundle.family.profiles(bundle.manifest, key):
            sizes = {
                axis: profile.shapes[tensor.name][2][place]
                for tensor in entry.inputs
                for place, axis in enumerate(tensor.shape)
                if isinstance(axis, str)
            }
            jobs.append({"graph": str(bundle.files(key)[0]), "sizes": sizes, "calls": 1, **facts})
            fixed = [[sizes.get(n, n) if isinstance(n, str) else n for n in t.shape] for t in entry.inputs]
            fixed += [[sizes.get(n, n) if isinstance(n, str) else n for n in t.shape] for t in entry.outputs]
            asked.append((key, profile.name, 4 * sum(map(math.prod, fixed)) if entry.repeated else 0))
    for (key, profile, copies), found in zip(asked, measure(jobs), strict=True):
        part = record.components[key]
        assert (part.weights_bytes, part.activation_bytes[profile]) == (found.weights, found.peak[0] + copies), key


def test_clips_keep_to_the_plan_of_what_was_recorded(recorded: Any) -> None:
    bundle, (record, peaks) = Bundle("default"), recorded
    family, run = bundle.family, RunShape(tasks=("segment",), depth=False, cfg_rows="batched")
    footprints = record.footprints(bundle, family.calls(bundle.manifest, run).components)
    for memory, peak in zip(("resident", "sequential"), peaks, strict=True):
        plan = plan_memory(family, bundle.manifest, footprints, run, memory)  # type: ignore[arg-type]
        networks = max(phase.resident_bytes + phase.scratch for phase in plan.phases)
        assert 0.97 * networks <= peak <= networks, memory  # arrays of the stand-in for CuPy are on the host


BOUNDS = {  # at the real size with 8 frames at once: launches, and GB of activations at the peak
    "image_encoder": (610, 0.09),
    "vae_encoder": (175, 1.62),
    "unet_conditioner": (260, 0.006),
    "unet": (1750, 1.32),
    "vae_decoder": (600, 2.78),
    "depth": (410, 1.24),
}


@pytest.mark.slow
def test_at_the_real_size_all_of_it_is_on_the_gpu_and_within_bounds(measure: Measure, tmp_path: Path) -> None:
    made = planned("diffusion-vas", variant="cuda", precision="fp16")
    jobs = [job_of(c, tmp_path) for c in made.values()]
    for kind, found in zip(made, measure(jobs), strict=True):
        most, gb = BOUNDS[kind]
        assert (found.error, list(found.providers)) == ("", [CUDA])
        assert not [name for counts in found.counts for name in counts if name.startswith("illegal")]
        assert launches(found.counts[0], "recorded " if kind == "unet" else "") <= most, kind
        assert max(found.peak) <= gb * 1e9, kind
        if kind == "unet":
            assert found.counts[0]["graph recorded"] == 1
            assert found.counts[1] == {"graph launch": 1} | {n: c for n, c in found.counts[1].items() if "cuda" in n}
    moved = bytes_moved(tmp_path / "segment_unet.onnx", SIZES)
    assert between_kernels(moved) <= 100e9
    assert sum(moved.values()) <= 151e9
