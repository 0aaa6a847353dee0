"""Fidelity: what rounding costs, step by step, beside float32 twins and beside torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from amodal.bench.measures import fidelity
from amodal.bench.measures.fidelity import equal, measure_fidelity, stage_fidelity
from amodal.bench.reference import same_clip
from amodal.bench.reference.same_clip import StageOutput, inputs_of
from amodal.bench.running.clips import Execution
from amodal.bench.running.machine import work_of
from amodal.bench.schema import Fidelity, read_results
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load

ONE = Execution(threads=1)


class Rounding:
    """A backend whose components give half precision; loading a real half-precision graph takes ONNX Runtime 5 s."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def load(self, *args: Any) -> Any:
        return _Rounded(self._backend.load(*args))


class _Rounded:
    def __init__(self, executable: Any) -> None:
        self._executable, self.close = executable, executable.close

    def __call__(self, inputs: Any) -> dict[str, Any]:
        return {name: x.astype(np.float16).astype(np.float32) for name, x in self._executable(inputs).items()}

    def map(self, batches: Any) -> list[dict[str, Any]]:
        return [self(inputs) for inputs in batches]


@pytest.mark.slow
def test_a_float32_bundle_on_the_cpu_is_its_own_twin_at_every_step(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "off")  # the twin runs plain graphs
    from amodal.cli.bench.fidelity import command

    options = ["--steps", "2", "--threads", "1", "-o", str(tmp_path / "fidelity.json")]
    shown = CliRunner().invoke(command, [str(toy_bundle), *options])
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["1", "700", "0.00e+00", "0.00e+00"] in lines
    assert ["2", "0.002", "0.00e+00", "0.00e+00"] in lines
    assert ["onnxruntime,", "cpu", "segment", "0.0e+00", "0.0e+00", "1.0000", "0", "0"] in lines
    assert ["onnxruntime,", "cpu", "complete", "0.0e+00", "0.0e+00", "–", "0", "0"] in lines
    assert ["segment:", "bit", "for", "bit", "equal"] in lines
    assert ["complete:", "bit", "for", "bit", "equal"] in lines
    (found,) = read_results(tmp_path / "fidelity.json").measurements
    assert isinstance(found, Fidelity)
    assert all(equal(stage) for stage in found.stages)
    assert found.executed.backend == "onnxruntime"
    assert "all in float32, by onnxruntime" in found.reference
    assert found.against == "twin"


@pytest.mark.slow
def test_what_is_rounded_differs_by_what_two_runs_by_hand_differ_by(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMODAL_KERNELS", "off")
    monkeypatch.setattr(same_clip, "load", lambda *args, **options: load(*args, wrap=Rounding, **options))
    work = work_of(Bundle(toy_bundle), "segment", steps=3)
    (found,) = measure_fidelity(toy_bundle, work, ONE).stages
    assert 0 < max(found.latents) < 2e-2
    arrays, latents, frames = inputs_of(work), [], []
    for options in ({}, {"wrap": Rounding}):
        with load(toy_bundle, threads=1, **options) as model:  # type: ignore[arg-type]
            kept: list[Any] = []
            seen = model.segment(
                arrays.modal,
                depth=arrays.depth,
                steps=3,
                callback=lambda step, sigma, x, kept=kept: kept.append(x.copy()),
            )
            latents.append(kept)
            frames.append(seen.frames.astype(int))
    for got, exact, rounded in zip(found.latents, *latents, strict=True):
        assert got == pytest.approx(np.sqrt(((rounded - exact) ** 2).sum() / (exact**2).sum()), rel=1e-4)
    assert found.frames_max == abs(frames[1] - frames[0]).max()
    assert found.frames_mean == pytest.approx(abs(frames[1] - frames[0]).mean())


@pytest.mark.slow
def test_torch_draws_the_same_from_the_same_noise_churn_and_all(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(fidelity, "in_new_process", lambda function, *args: function(*args))
    threads, flags = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    work = work_of(Bundle(toy_bundle), steps=3, churn=0.3)
    found = measure_fidelity(toy_bundle, work, ONE, against="diffusers")
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = flags
    for stage in found.stages:
        assert 0 < max(stage.latents) < 1e-4
        assert stage.frames_max <= 1
    assert "checkpoint's weights in float32, by diffusers" in found.reference
    assert found.model_copy(update={"against": None}).compared_with == found.against == "diffusers"


def test_figures_are_those_of_loops_over_pixels() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8) for _ in range(2))
    masks = rng.random((2, 2, 4, 4)) < 0.5
    x = rng.standard_normal((2, 4, 2, 2)).astype(np.float32)
    found = stage_fidelity("segment", StageOutput([], [x * 1.1], a, masks[0]), StageOutput([7.0], [x], b, masks[1]))
    apart = [abs(int(p) - int(q)) for p, q in zip(a.ravel(), b.ravel(), strict=True)]
    pairs = list(zip(*masks.reshape(2, -1).tolist(), strict=True))
    assert found.frames_max == max(apart)
    assert found.frames_mean == pytest.approx(sum(apart) / len(apart))
    assert found.masks_iou == sum(p and q for p, q in pairs) / sum(p or q for p, q in pairs)
    assert found.latents == [pytest.approx(0.1, rel=1e-5)]
    assert not equal(found)


def test_work_without_a_stage_and_unknown_references_are_refused(toy_bundle: Path) -> None:
    work = work_of(Bundle(toy_bundle))
    with pytest.raises(InputError, match="does not have the stage"):
        measure_fidelity(toy_bundle, work.model_copy(update={"stages": []}), ONE)
    with pytest.raises(InputError, match="expected twin or diffusers"):
        measure_fidelity(toy_bundle, work, ONE, against="torch")  # type: ignore[arg-type]
