"""The roofline: the calls that are counted are those that are made, and predictions follow from what is published."""

from __future__ import annotations

import json
import types
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("psutil")

from amodal.bench.families.diffusion_vas import run_of
from amodal.bench.report.roofline import content
from amodal.bench.roofline import ceilings
from amodal.bench.roofline import measure as roofline
from amodal.bench.roofline.flops import calls_of, count_run
from amodal.bench.roofline.gpus import GPUS, find_gpu
from amodal.bench.roofline.measure import measure_roofline, memory_on, predict, share_in_paper
from amodal.bench.running.clips import Execution, running
from amodal.bench.running.machine import work_of
from amodal.bench.schema import Ceilings, ComponentCost, Roofline, Work, comparisons, fill_a_gpu, read_results
from amodal.cli import main
from amodal.runtime.backends import EngineNeeds
from amodal.runtime.bundle.manifest import ComponentEntry
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.settings import CfgRows
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import Planner
from amodal.runtime.memory.plan import Footprint
from amodal.runtime.model import Model
from amodal.runtime.scenes import make_scene

from ...stand_ins import stand_in_module

ROWS: tuple[CfgRows, ...] = ("batched", "separate")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle("default")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings of matrices and copies so small that they take no time."""
    monkeypatch.setattr(ceilings, "CPU_SIDES", (32, 64))
    monkeypatch.setattr(ceilings, "GPU_SIDES", (16, 32))
    for name in ("_CPU_COPY", "_GPU_COPY"):
        monkeypatch.setattr(ceilings, name, 1 << 16)
    measure = ceilings.measure_ceilings
    monkeypatch.setattr(roofline, "BUSY", 1.0)
    monkeypatch.setattr(roofline, "measure_ceilings", lambda backend: measure(backend, seconds=0.0))


class Listening:
    """A backend that computes nothing, and notes which component is called with which shapes; engines on a GPU's."""

    name = "listening"

    def __init__(self, bundle: Bundle, lanes: int, engines: EngineNeeds | None) -> None:
        self.lanes, self.engines, self.on_gpu = lanes, engines, engines is not None
        self.xp: Any = np if engines is None else stand_in_module("cupy")
        self._keys = {bundle.files(key)[0]: key for key in bundle.manifest.components}
        self.heard: Counter[tuple[str, tuple[tuple[int, ...], ...]]] = Counter()

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Any:
        def run(inputs: Any) -> dict[str, Any]:
            shapes = tuple(tuple(inputs[tensor.name].shape) for tensor in entry.inputs)
            self.heard[self._keys[files[0]], shapes] += 1
            axes = dict(zip(sum((t.shape for t in entry.inputs), ()), sum(shapes, ()), strict=True))
            return {
                tensor.name: self.xp.asarray(np.zeros([axes.get(n, n) for n in tensor.shape], np.float32))
                for tensor in entry.outputs
            }

        class Silent:
            def __call__(self, inputs: Any) -> dict[str, Any]:
                return run(inputs)

            def map(self, batches: Any) -> list[dict[str, Any]]:
                return [run(inputs) for inputs in batches]

            def close(self) -> None:
                pass

        return Silent()

    def active(self) -> Any:
        return nullcontext()

    def to_host(self, array: Any) -> Any:
        return array if self.xp is np else self.xp.asnumpy(array)

    def describe(self) -> dict[str, str]:
        return {"name": self.name, "version": "1"}


@pytest.mark.parametrize("engines", [None, EngineNeeds("1", "sm86")])
@pytest.mark.parametrize(
    ("lanes", "memory", "guidance", "samples"),
    [(1, "resident", 1.5, 2), (2, "resident", 1.5, 1), (2, "sequential", 1.5, 1), (2, "resident", 1.0, 1)],
)
def test_the_calls_that_are_counted_are_those_that_a_clip_makes(
    bundle: Bundle, engines: EngineNeeds | None, lanes: int, memory: Any, guidance: float, samples: int
) -> None:
    work = work_of(bundle, "segment", steps=2, guidance=guidance, samples=samples)
    backend = Listening(bundle, lanes if engines is None else 1, engines)
    scene = make_scene(1, work.frames, work.size)
    with Model(bundle, backend, memory, verify=False) as model:
        model.segment(scene.modal, depth=scene.depth, steps=2, guidance=(guidance, guidance), samples=samples)
        run = run_of(work, model)
    expected: Counter[tuple[str, tuple[tuple[int, ...], ...]]] = Counter()
    for (_, component), calls in calls_of(bundle, run).items():
        inputs = bundle.component(component).inputs
        for axes, times in calls.items():
            sizes = dict(axes)
            shapes = tuple(tuple(n if isinstance(n, int) else sizes[n] for n in tensor.shape) for tensor in inputs)
            expected[component, shapes] += times
    assert backend.heard == expected


def test_cutting_a_clip_otherwise_changes_weights_read_and_no_operation(bundle: Bundle) -> None:
    work = work_of(bundle, steps=3)
    together, apart = (count_run(bundle, replace(run_of(work), cfg_rows=rows)) for rows in ROWS)
    for one, two in zip(together, apart, strict=True):
        assert one.products == pytest.approx(two.products)
        factor = 2 if one.component.endswith("/unet") else 1
        assert two.calls == factor * one.calls
        assert two.weights == factor * one.weights


def test_steps_guidance_and_stages_multiply_what_they_should(bundle: Bundle) -> None:
    def unet(**settings: Any) -> float:
        costs = {cost.component: cost for cost in count_run(bundle, run_of(work_of(bundle, "segment", **settings)))}
        return costs["segment/unet"].products

    assert unet(steps=10) == pytest.approx(5 * unet(steps=2))
    assert unet(steps=2, guidance=1.0) == pytest.approx(unet(steps=2) / 2)
    both = count_run(bundle, run_of(work_of(bundle, steps=2)))
    assert {cost.component.split("/")[0] for cost in both} == {"segment", "complete"}


def test_frames_that_do_not_divide_are_decoded_in_a_shorter_last_chunk(bundle: Bundle) -> None:
    config = {**bundle.manifest.config, "frames": 11, "decode_chunk": 4}
    longer: Any = types.SimpleNamespace(
        manifest=bundle.manifest.model_copy(update={"config": config}), family=bundle.family, component=bundle.component
    )
    counted = calls_of(longer, run_of(work_of(bundle, "segment"))).items()
    calls = {f"{task}/{bundle.component(component).kind}": axes for (task, component), axes in counted}
    assert calls["segment/vae_decoder"] == {(("frames", 4),): 2, (("frames", 3),): 1}
    assert calls["segment/vae_encoder"] == {(("frames", 5),): 4, (("frames", 1),): 2}


# Predictions


WORK = Work(stages=["segment"], frames=10, size=(64, 64))


def made_up(products: float, weights: float, precision: Any = "fp16", name: str = "segment/unet") -> ComponentCost:
    flops = {"matmul": products / 2, "attention": 0.0, "convolution": products / 2, "other": products}
    return ComponentCost(
        component=name, precision=precision, calls=1, flops=flops, weights=weights, activations=1e15, boundary=0.0
    )


def test_a_floor_is_the_longer_of_arithmetic_and_memory_of_each_component() -> None:
    gpu = find_gpu("4090")
    arithmetic, memory, single = made_up(1e15, 1e6), made_up(1e9, 1e12), made_up(1e15, 1e6, "fp32")
    exact, fast = predict([arithmetic, memory, single], WORK, gpu, 0.5)
    seconds = 1e15 / 165.2e12 + 1e12 / 1008e9 + 1e15 / 82.6e12
    assert exact.floor == pytest.approx(seconds / 10)
    assert exact.likely == pytest.approx((2e15 / 165.2e12 + 1e12 / 1008e9 + 2e15 / 82.6e12) / 10)
    assert (exact.accumulation, fast.accumulation) == ("fp32", "fp16")
    assert fast.floor == pytest.approx((1e15 / 330.3e12 + 1e12 / 1008e9 + 1e15 / 82.6e12) / 10)


def test_cards_that_sum_in_either_at_one_rate_are_predicted_once() -> None:
    for gpu in GPUS:
        predictions = list(predict([made_up(1e15, 1e6)], WORK, gpu))
        assert len({prediction.rate for prediction in predictions}) == len(predictions)
        assert all(prediction.source and prediction.likely > prediction.floor > 0 for prediction in predictions)


def test_rates_are_dense_and_geforce_sums_in_fp32_at_half_rate() -> None:
    for gpu in GPUS:
        if gpu.fp32_sums is not None:
            geforce = gpu.name.removeprefix("RTX ")[:4].isdigit() and "Ada" not in gpu.name
            assert gpu.fp16_sums / gpu.fp32_sums == pytest.approx(2 if geforce else 1, rel=0.002), gpu
    assert max(gpu.fp16_sums for gpu in GPUS) < 1000  # with sparsity, an H100's would be 1979


@pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "4090", "NVIDIA GeForce RTX 4090"])
def test_a_gpu_is_found_however_it_is_spelt(name: str) -> None:
    assert find_gpu(name).name == "RTX 4090"


@pytest.mark.parametrize(("name", "what"), [("Voodoo 2", "none whose"), ("A100", "several"), ("", "none whose")])
def test_a_gpu_that_is_unknown_or_ambiguous_is_a_sentence(name: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        find_gpu(name)


def test_whether_a_run_fits_follows_from_the_plan(bundle: Bundle) -> None:
    keys = bundle.manifest.components
    size = 5 * 10**9
    footprints = {
        key: Footprint(size, dict.fromkeys((p.name for p in bundle.family.profiles(bundle.manifest, key)), 0))
        for key in keys
    }
    shape = RunShape(("segment",))
    planner = Planner(bundle.family, bundle.manifest, footprints)
    roomy, tight, small = (memory_on(planner, shape, find_gpu(name)) for name in ("H200", "4060", "L4"))
    assert [each["fits"] for each in (roomy, tight, small)] == [True] * 3
    assert [each["way"] for each in (roomy, tight, small)] == [
        f"{m}, batched CFG rows" for m in ("resident", *2 * ("sequential",))
    ]
    assert tight["planned"] < 2 * size < 5 * size < roomy["planned"]
    larger = {key: Footprint(4 * size, each.activations) for key, each in footprints.items()}
    none = memory_on(Planner(bundle.family, bundle.manifest, larger), shape, find_gpu("4060"))
    assert not none["fits"]
    assert none["planned"] > 4 * size
    (prediction, _) = predict([made_up(1e15, 1e6)], WORK, find_gpu("4060"), memory=tight)
    assert (prediction.planned, prediction.fits) == (tight["planned"], True)


def test_the_papers_time_is_set_beside_the_rate_of_its_card_only_for_its_clip() -> None:
    def measured(work: Work, products: float) -> Roofline:
        costs = [made_up(products, 1e6, name=f"{stage}/unet") for stage in work.stages]
        found = Ceilings(precision="float32", library="none", side=1, flops=[1.0], bandwidth=[1.0])
        return Roofline(work=work, executed=None, components=costs, ceilings=found, predictions=[])

    paper = Work(stages=["segment", "complete"], frames=25, size=(256, 512))
    shares = share_in_paper(measured(paper, 7.2e14))
    assert shares is not None
    assert shares["segment"] == pytest.approx(7.2e14 / 25 / 0.95 / 71.2e12)
    assert shares["both"] == pytest.approx(2 * shares["segment"])
    assert share_in_paper(measured(paper, 7.2e12)) is None
    assert share_in_paper(measured(paper.model_copy(update={"steps": 10}), 7.2e14)) is None


# Measuring


@pytest.mark.parametrize("rounded", [False, True])
def test_ceilings_of_the_cpu_are_positive_and_keep_their_samples(brief: None, rounded: bool) -> None:
    if rounded:
        pytest.importorskip("openvino")
    found = ceilings.cpu_ceilings(threads=1, seconds=0.0, bfloat16=rounded)
    assert found.precision.startswith("bfloat16" if rounded else "float32")
    assert found.library.split()[0] == ("openvino" if rounded else "onnxruntime")
    assert found.side in (32, 64)
    assert len(found.flops) >= 3
    assert len(found.bandwidth) >= 3
    assert min(*found.flops, *found.bandwidth) > 0
    assert found.rate == np.median(found.flops)


@pytest.mark.parametrize(("arithmetic", "rounded"), [("bfloat16", True), (None, False)])
def test_the_ceiling_is_in_the_arithmetic_of_the_backend(
    arithmetic: str | None, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ceilings, "cpu_ceilings", lambda *args: asked.append(args))
    described = {"threads": "3"} | ({} if arithmetic is None else {"arithmetic": arithmetic})
    backend = types.SimpleNamespace(engines=None, xp=np, describe=lambda: described)
    ceilings.measure_ceilings(backend, seconds=0.0)
    assert asked == [(3, 0.0, rounded)]


def test_ceilings_of_a_gpu_are_timed_between_events_on_halves(brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    products, times = [], iter(range(1, 1000))

    class Event:
        def record(self) -> None:
            self.at = next(times)

        def synchronize(self) -> None:
            pass

    def matmul(left: Any, right: Any) -> Any:
        products.append({left.dtype, right.dtype})
        return np.matmul(left, right)

    class Rng:
        @staticmethod
        def standard_normal(shape: Any, dtype: Any) -> Any:
            return np.ones(shape, dtype)

    cuda = types.SimpleNamespace(Event=Event, get_elapsed_time=lambda begin, end: 1000.0 * (end.at - begin.at))
    fake = types.SimpleNamespace(
        **{name: getattr(np, name) for name in ("zeros", "empty", "empty_like", "copyto")},
        **{dtype.__name__: dtype for dtype in (np.uint8, np.float16, np.float32)},
        matmul=matmul, random=Rng, cuda=cuda, __version__="14",
        get_default_memory_pool=lambda: types.SimpleNamespace(free_all_blocks=lambda: None),
    )  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, "cupy", fake)
    found = ceilings.gpu_ceilings(seconds=0.0)
    assert all(dtypes == {np.dtype(np.float16)} for dtypes in products)
    assert found.side == 32  # every event a second after the last: the larger product is the faster
    assert found.flops == [2.0 * 32**3] * 3
    assert found.bandwidth == [2.0 * (1 << 16)] * 3
    assert found.precision == "float16, float32 accumulation"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network counts as large enough to fill a GPU."""
    monkeypatch.setattr(comparisons, "LEAST_CALL", 0.0)


def test_no_time_on_a_gpu_is_predicted_of_networks_that_do_not_fill_one(bundle: Bundle, brief: None) -> None:
    measured = measure_roofline(bundle, work_of(bundle), Execution())
    assert measured.predictions == []
    _, figures, notes, _ = content([measured])
    assert "No time on a GPU is predicted: networks this small would not fill one." in notes
    assert not [figure for figure in figures if figure.basis == "predicted"]
    real = made_up(15e12, 1e9)
    assert not fill_a_gpu([made_up(3e9, 1e6)])
    assert fill_a_gpu([made_up(3e9, 1e6), real])
    assert not fill_a_gpu([real.model_copy(update={"calls": 25})])


def test_a_run_is_measured_component_by_component(bundle: Bundle, brief: None, large: None) -> None:
    work = work_of(bundle, "segment", steps=1)
    said: list[str] = []
    with running(bundle.path, work, Execution(threads=2)) as runner:
        measured = measure_roofline(
            bundle,
            work,
            Execution(),
            runner=runner,
            clips=1,
            gpus=[find_gpu("3090")],
            progress=lambda what, *_: said.append(what),
        )
    assert measured.executed is not None
    assert {cost.component for cost in measured.components} >= {"segment/unet", "segment/vae_decoder"}
    assert all(cost.seconds is not None and cost.seconds > 0 for cost in measured.components)
    unet = next(cost for cost in measured.components if cost.component == "segment/unet")
    assert unet.calls == 2  # two CFG rows side by side
    share = unet.share_of(measured.ceilings)
    assert share == pytest.approx(unet.products / (unet.seconds or 0) / measured.ceilings.rate)
    assert [prediction.gpu for prediction in measured.predictions] == ["RTX 3090"] * 2
    assert measured.predictions[0].planned is None
    assert any(what.startswith("running clip 1 of 1") for what in said)


def test_nothing_is_run_when_nothing_is_to_be_run(bundle: Bundle, brief: None) -> None:
    measured = measure_roofline(bundle, work_of(bundle), Execution(), gpus=[])
    assert measured.executed is None
    assert all(cost.seconds is None for cost in measured.components)
    assert next(cost for cost in measured.components if cost.component == "segment/unet").calls == 25


def test_a_busy_machine_is_said(bundle: Bundle, brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "BUSY", -1.0)
    (warning,) = measure_roofline(bundle, work_of(bundle), Execution(), gpus=[]).warnings
    assert "measure again on a quiet machine" in warning


# The command


def issue(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "roofline", *args])
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


def test_the_command_says_what_is_counted_measured_and_predicted(
    brief: None, large: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "roofline.json"
    run = ("default", "--stage", "segment", "--steps", "1", "--clips", "1", "--threads", "1")
    code, out, err = issue(capsys, *run, "--gpu", "3090", "-o", str(file))
    assert (code, err) == (0, "")
    for words in ("Counted. ", "per clip (measured)", "Measured. ", "Predicted. ", "amodal build"):
        assert words in out
    (kept,) = read_results(file).measurements
    assert isinstance(kept, Roofline)
    assert kept.work.stages == ["segment"]
    assert [path.name for path in tmp_path.iterdir()] == ["roofline.json"]


def test_the_command_prints_json_without_a_run(brief: None, large: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = issue(capsys, "default", "--no-run", "--json")
    assert code == 0
    (measured,) = json.loads(out)["measurements"]
    assert measured["executed"] is None
    assert {prediction["gpu"] for prediction in measured["predictions"]} == {gpu.name for gpu in GPUS}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nowhere",), "is not a bundle"),
        (("default", "--gpu", "Voodoo"), "GPU 'Voodoo' is none"),
        (("default", "-o", "."), "is a directory"),
    ],
)
def test_bad_input_is_one_sentence(args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = issue(capsys, *args)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1
