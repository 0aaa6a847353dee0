"""The memory of graphs on a GPU, from what was measured: made-up records of the toy bundle, and a made-up GPU."""

from __future__ import annotations

import json
import logging
import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.builds.store import graph_hash
from amodal.runtime.errors import (
    EngineCorruptError,
    EngineNotFoundError,
    EngineStaleError,
    InputError,
    MemoryBudgetError,
    OutputError,
)
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import BackendFacts, MemoryRequest, plan_model
from amodal.runtime.memory.recorded import ComponentMemory, MemoryRecord, read_memory, record_file, write_memory
from amodal.runtime.memory.recording import record_memory

MB = 1_000_000


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Bundle:
    """A copy, for records to be written into."""
    return Bundle(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def made_up(bundle: Bundle) -> MemoryRecord:
    """Weights of 10 MB, of U-Nets 100; activations of 20 MB, of decoders 50, of U-Nets 30 for a row and 60 for two."""
    activations = {"unet": 60, "vae_decoder": 50}
    return MemoryRecord(
        version="1.31.1",
        measured_on="a made-up GPU",
        components={
            key: ComponentMemory(
                graph=graph_hash(bundle, key),
                weights_bytes=(100 if entry.repeated else 10) * MB,
                activation_bytes={
                    profile.name: 30 * MB if profile.name == "rows=1" else activations.get(entry.kind, 20) * MB
                    for profile in bundle.family.profiles(bundle.manifest, key)
                },
                kept=entry.repeated,
            )
            for key, entry in bundle.manifest.components.items()
        },
    )


def plan(bundle: Bundle, free: int | None = None, **request: Any) -> Any:
    facts = BackendFacts(on_gpu=True, free=free)
    return plan_model(bundle, bundle.family, "onnxruntime", MemoryRequest(**request), facts)


def test_steps_keep_their_arenas_and_others_free_theirs(bundle: Bundle) -> None:
    write_memory(bundle, made_up(bundle))
    found = plan(bundle, run=RunShape(cfg_rows="batched")).plan
    count = len(bundle.manifest.components)
    assert {phase.resident_bytes for phase in found.phases} == {(2 * 100 + (count - 2) * 10) * MB}
    scratch = {(phase.task, phase.name): phase.scratch // MB for phase in found.phases}
    for stage in ("segment", "complete"):  # those of both U-Nets, beside that of the component that runs
        assert scratch[stage, "encode"] == scratch[stage, "condition"] == 60 + 60 + 20
        assert scratch[stage, "denoise"] == 60 + 60
        assert scratch[stage, "decode"] == 60 + 60 + 50
    assert found.shared_scratch == 0
    alone = plan(bundle, memory="sequential", run=RunShape(cfg_rows="separate")).plan
    assert {phase.name: (phase.resident_bytes + phase.scratch) // MB for phase in alone.phases} == {
        "encode": 10 + 20,
        "condition": 10 + 20,
        "denoise": 100 + 30,
        "decode": 10 + 50,
    }


def test_a_budget_below_the_recorded_need_is_refused_and_auto_takes_the_way_that_fits(bundle: Bundle) -> None:
    write_memory(bundle, made_up(bundle))
    need = plan(bundle).plan.peak_bytes
    weights = sum(entry.loaded_bytes for entry in bundle.manifest.components.values())
    assert weights < need - 1  # without a record it would be let through
    assert plan(bundle, vram=need).plan.memory == "resident"
    with pytest.raises(MemoryBudgetError, match=r"GPU memory are not enough \(`vram`\): the least is "):
        plan(bundle, vram="300MB", memory="resident")
    assert plan(bundle, vram="300MB", memory="auto").plan.memory == "sequential"
    with pytest.raises(MemoryBudgetError, match=r"free here and not enough"):
        plan(bundle, free=100 * MB, vram="6GB", memory="auto")


def test_a_loaded_model_is_held_to_its_record_before_any_component_is_loaded(bundle: Bundle) -> None:
    write_memory(bundle, made_up(bundle))
    planned = plan(bundle, vram="300MB", memory="sequential", run=RunShape(("segment",)))
    assert planned.fit_to_budget(RunShape(("segment",))).tasks == ("segment",)
    with pytest.raises(InputError, match="loaded for segment alone"):
        planned.fit_to_budget(RunShape(("complete",)))


def test_without_a_record_only_weights_are_compared(bundle: Bundle) -> None:
    assert plan(bundle, vram="6GB") is None
    with pytest.raises(MemoryBudgetError, match="activations come on top"):
        plan(bundle, vram=1000)
    with pytest.raises(EngineNotFoundError, match=r"was not measured .* run `amodal inspect BUNDLE .* --record`"):
        read_memory(bundle)


def test_a_record_of_other_graphs_is_refused_with_a_budget_and_passed_over_without(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    record = made_up(bundle)
    changed = record.components["vae_decoder"].model_copy(update={"graph": "0" * 64})
    others = {key: part for key, part in record.components.items() if key != "vae_decoder"}
    for components, why in (({**others, "vae_decoder": changed}, "is of another graph"), (others, "lacks it")):
        write_memory(bundle, record.model_copy(update={"components": components}))
        with pytest.raises(EngineStaleError, match=f"vae_decoder is unknown: .* {why}; run `amodal inspect"):
            plan(bundle, vram="6GB")
        with caplog.at_level(logging.WARNING):
            assert plan(bundle) is None
        assert why in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"record_version": 2}', '{"record_version": 1}', "[" * 100_000])
def test_a_damaged_record_is_named(bundle: Bundle, content: str) -> None:
    record_file(bundle).parent.mkdir()
    record_file(bundle).write_text(content)
    with pytest.raises(EngineCorruptError, match=r"onnxruntime-cuda\.json cannot be read \("):
        read_memory(bundle)


def test_a_record_is_written_whole_or_not_at_all(bundle: Bundle) -> None:
    file = write_memory(bundle, made_up(bundle))
    assert read_memory(bundle) == made_up(bundle)
    assert json.loads(file.read_text())["measured_on"] == "a made-up GPU"
    assert [other.name for other in file.parent.iterdir()] == [file.name]
    shutil.rmtree(file.parent)
    file.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        write_memory(bundle, made_up(bundle))


class MadeUpGpu:
    """A backend whose components take 7 bytes a parameter, 3 bytes a value of their inputs, and keep what they took.

    At its first load a component takes 1000 bytes more, as kernels do, which never come back.
    """

    engines = None
    name = "onnxruntime"

    def __init__(self) -> None:
        self.taken, self.pool, self.seen = 0, 0, set[str]()
        self.xp = SimpleNamespace(
            zeros=self._zeros,
            get_default_memory_pool=lambda: SimpleNamespace(total_bytes=lambda: self.pool),
        )

    def _zeros(self, shape: Any, dtype: Any) -> Any:
        array = np.zeros(shape, dtype)
        self.pool += array.nbytes
        self.taken += array.nbytes
        return array

    def active(self) -> Any:
        return nullcontext()

    def free_memory(self) -> int:
        return 10**9 - self.taken

    def describe(self) -> dict[str, str]:
        return {"version": "1.31.1", "gpu": "RTX 3090"}

    def load(self, entry: Any, files: Any) -> Any:
        first = str(files[0]) not in self.seen
        self.seen.add(str(files[0]))
        return MadeUpComponent(self, 7 * entry.parameters, 1000 * first)


class MadeUpComponent:
    def __init__(self, gpu: MadeUpGpu, weights: int, once: int) -> None:
        self.gpu, self.mine, self.once = gpu, weights, once
        gpu.taken += weights

    def __call__(self, inputs: Any) -> Any:
        arena = 3 * sum(array.size for array in inputs.values())
        self.mine += arena
        self.gpu.taken += arena + self.once
        return {"result": np.zeros((5, 5), np.float32)}

    def close(self) -> None:
        self.gpu.taken -= self.mine


def test_what_is_measured_is_what_each_component_adds(bundle: Bundle) -> None:
    record = record_memory(bundle, bundle.family, MadeUpGpu())  # type: ignore[arg-type]
    assert (record.version, record.measured_on) == ("1.31.1", "RTX 3090")
    assert set(record.components) == set(bundle.manifest.components)
    for key, entry in bundle.manifest.components.items():
        part = record.components[key]
        assert part.weights_bytes == 7 * entry.parameters
        assert part.kept == entry.repeated
        for profile in bundle.family.profiles(bundle.manifest, key):
            shapes = [profile.shapes[t.name][2] if t.name in profile.shapes else t.shape for t in entry.inputs]
            values = sum(math.prod(map(int, shape)) for shape in shapes)
            copies = 4 * (values + 25) if entry.repeated else 0
            assert part.activation_bytes[profile.name] == 3 * values + copies, key


def test_only_graphs_on_a_gpu_are_measured(bundle: Bundle) -> None:
    from amodal.runtime import backends

    with pytest.raises(InputError, match="only graphs on a GPU are measured"):
        record_memory(bundle, bundle.family, backends.create("onnxruntime"))
