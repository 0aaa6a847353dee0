"""The check for a machine that is lent for minutes: its steps, what they measure, and how what they need gets there."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.bench.gpu_check import __main__ as gpu_check
from amodal.bench.gpu_check import arrays, fatbins, pack, weights
from amodal.bench.gpu_check.__main__ import check_of, main
from amodal.bench.gpu_check.plan import BACKEND, WEIGHTS, CheckOptions, plan
from amodal.bench.gpu_check.steps import Step, StepState
from amodal.bench.gpu_check.summary import summary_of
from amodal.bench.running.machine import this_machine
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load

from ...places import ROOT, STAND_IN
from ...stand_ins import forget_stand_ins


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(STAND_IN))
    forget_stand_ins()
    yield import_module("cupy")
    forget_stand_ins()


def test_stage_a_asks_nothing_of_onnx_runtime_and_b_begins_with_its_tests(tmp_path: Path) -> None:
    first = plan(CheckOptions(tmp_path, stage="a"), {})
    assert [s.name for s in first] == ["probe", "tests arrays", "arrays cupy", "tests torch", "eager torch"]
    assert first[3].environment == {BACKEND: "torch"}
    assert not any("onnxruntime" in word for s in first for word in s.command)
    second = plan(CheckOptions(tmp_path, stage="b"), {})
    assert [s.name for s in second] == ["probe", "tests onnxruntime", "options onnxruntime"]
    for steps in (first, second):
        assert not [s.name for s in steps if s.missing]
        assert sum(s.limit for s in steps) < 5 * 60
        assert set().union(*(s.needs for s in steps)) <= {s.name for s in steps}


def test_a_bundle_without_weights_is_filled_before_it_is_timed(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_text("{}")
    steps = {s.name: s for s in plan(CheckOptions(tmp_path, str(tmp_path), stage="b"), {})}
    assert steps["options onnxruntime"].needs == ("weights cupy",)
    assert steps["options onnxruntime"].command.count("--case") == 3
    assert steps["weights cupy"].command[-2:] == ("fill", str(tmp_path))


def test_every_step_of_the_stages_is_a_command_that_is_there(tmp_path: Path) -> None:
    from click.testing import CliRunner

    for stage in ("a", "b"):
        for one in plan(CheckOptions(tmp_path, stage=stage), {}):  # type: ignore[arg-type]
            assert one.command[:2] == (sys.executable, "-m")
            module = import_module(one.command[2])
            if "options" in one.name:
                outcome = CliRunner().invoke(module.main, [*one.command[3:], "--help"])
                assert outcome.exit_code == 0, outcome.output


def test_the_stage_is_an_option_and_results_are_kept_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    asked: list[Any] = []

    def planned(options: CheckOptions, states: Any) -> list[Step]:
        asked.append((options.stage, sorted(states)))
        return [Step(name, (sys.executable, "-c", "print('{\"arrays\": []}')"), 30) for name in ("one", "two")]

    monkeypatch.setattr(gpu_check, "plan", planned)
    outcome = CliRunner().invoke(main, ["-o", str(tmp_path / "out"), "--stage", "a", "--minutes", "4"])
    assert outcome.exit_code == 0, outcome.output
    assert asked == [("a", []), ("a", ["one"]), ("a", ["one", "two"])]
    assert len(list((tmp_path / "out" / "steps").iterdir())) == 2


def test_arrays_on_the_device_are_compared_with_numpys_bit_by_bit(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy.lazy = True
    monkeypatch.setattr(arrays, "SIZE", (32, 64))
    monkeypatch.setattr(arrays, "FRAMES", 2)
    rows = arrays.compare(cupy, arrays.make_inputs(2, (30, 45), (32, 64)))
    assert [row["case"] for row in rows] == list(arrays.CASES)
    assert all(row["equal"] and row["difference"] == 0 for row in rows)
    off = arrays.Case(lambda x, xp: x + np.float32(xp is cupy), ("depth",))
    monkeypatch.setattr(arrays, "CASES", {"wrong": off, "broken": arrays.Case(lambda xp: xp.nothing, ())})
    wrong, broken = arrays.compare(cupy, arrays.make_inputs(2, (30, 45), (32, 64)))
    assert not wrong["equal"]
    assert wrong["difference"] == pytest.approx(1)
    assert "nothing" in broken["error"]


def test_what_a_stage_measured_is_in_the_summary() -> None:
    row = {"case": "noise", "wanted": True, "equal": False, "difference": 1e-7, "host": 0.1, "device": 0.001}
    outputs: dict[str, Any] = {
        "arrays cupy": {"arrays": [row, {"case": "depth", "wanted": False, "error": "KeyError: x"}]},
        "eager torch": {"first": 3.0, "seconds": [0.2, 0.1, 0.3], "peak_bytes": 5 * 10**9, "finite": True},
    }
    states = {n: StepState(name=n, key="", command=[], state="done", output=output) for n, output in outputs.items()}
    text = summary_of(check_of(this_machine(), states))
    assert "| noise | 1.0e-07 (no bit may differ) | 100.0 | 1.0 |" in text
    assert "| depth | KeyError: x | - | - |" in text
    assert "| 200.0 | 5.00 GB | yes |" in text


def test_the_eager_unet_is_diffusers_own() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from amodal.bench.gpu_check.eager import time_unet

    found = time_unet("tiny", "cpu", (8, 8), 2, calls=1)
    assert found["finite"]
    assert (len(found["seconds"]), found["peak_bytes"]) == (1, None)


def test_weights_are_stripped_and_random_ones_take_their_place(toy_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = tmp_path / "bundle"
    shutil.copytree(toy_bundle, folder)
    before = {file.name: np.fromfile(file, np.float32) for file in folder.glob("graphs/*.data")}
    weights.strip(folder)
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 0.2 * sum(
        v.nbytes for v in before.values()
    )
    assert weights.fill(folder) == sum(v.nbytes for v in before.values())
    for name, values in before.items():
        filled = np.fromfile(folder / "graphs" / name, np.float32)
        assert filled.size == values.size
        assert not np.array_equal(filled, values)
        assert abs(filled.std() / values.std() - 1) < 0.1
    config = Bundle(folder).config
    modal = np.zeros((config.frames, *config.size), bool)
    modal[:, 16:32, 16:32] = True
    with load(folder, threads=1, verify=False) as model:
        seen = model.segment(modal, depth=modal.astype(np.float32), steps=1)
    assert seen.frames.shape[0] == config.frames


def archive(tmp_path: Path) -> tuple[Path, list[Path]]:
    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "package" / "data").write_bytes(np.random.default_rng(0).bytes(50_000))
    (source / "module.py").write_text("answer = 42\n")
    return source, pack.pack(source, tmp_path / "parts", 20_000)


def test_an_archive_travels_in_parts_and_is_joined_by_python_alone(tmp_path: Path) -> None:
    source, parts = archive(tmp_path)
    assert [part.stat().st_size for part in parts[:-1]] == [20_000] * (len(parts) - 1)
    # Two calls brought them to two places.
    other = tmp_path / "other"
    other.mkdir()
    shutil.move(parts[1], other)
    script = ROOT / "bench" / "gpu_check" / "pack.py"
    command = [sys.executable, "-I", "-S", script, "join", tmp_path / "parts", other, "-o", tmp_path / "site"]
    subprocess.run(command, check=True, cwd=tmp_path)
    for file in (file for file in source.rglob("*") if file.is_file()):
        assert (tmp_path / "site" / file.relative_to(source)).read_bytes() == file.read_bytes()


def test_parts_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    _, parts = archive(tmp_path)
    content = parts[1].read_bytes()
    parts[1].write_bytes(content[:-1] + b"!")
    with pytest.raises(SystemExit, match=r"part-01 is damaged"):
        pack.join([tmp_path / "parts"], tmp_path / "site")
    parts[1].unlink()
    with pytest.raises(SystemExit, match=r"part-01 is missing"):
        pack.join([tmp_path / "parts"], tmp_path / "site")
    with pytest.raises(SystemExit, match=r"parts.json is not in"):
        pack.join([tmp_path], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def library(*kernels: tuple[int, bytes]) -> bytes:
    """An ELF file of one section of kernels, in containers of two each, as nvcc writes them."""
    entries = [struct.pack("<HHIQ12xI32x", 2, 1, 64, len(code), architecture) + code for architecture, code in kernels]
    pairs = [b"".join(entries[i : i + 2]) for i in range(0, len(entries), 2)]
    section = b"".join(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(pair)) + pair + bytes(8) for pair in pairs)
    names = b"\0.nv_fatbin\0.names\0"
    table = 64 + len(section) + len(names)
    header = b"\x7fELF\2\1\1".ljust(40, b"\0") + struct.pack("<Q10xHHH", table, 64, 2, 1)
    rows = [(1, 64, len(section)), (12, 64 + len(section), len(names))]
    headers = [struct.pack("<IIQQQQ24x", name, 1, 0, 0, place, size) for name, place, size in rows]
    return header.ljust(64, b"\0") + section + names + b"".join(headers)


def test_kernels_of_other_architectures_become_zeros_and_nothing_else_changes() -> None:
    whole = library((80, b"a" * 64), (90, b"b" * 128), (120, b"c" * 64))
    assert fatbins.architectures(whole) == {80: 64, 90: 128, 120: 64}
    kept = fatbins.keep_architecture(whole, 90)
    assert kept == whole.replace(b"a" * 64, bytes(64)).replace(b"c" * 64, bytes(64))
    assert json.dumps(fatbins.architectures(kept)) == json.dumps(fatbins.architectures(whole))
