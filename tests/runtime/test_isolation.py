"""What the runtime must live without, and what a bare import must not cost: each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..places import ROOT

FORBIDDEN = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx_ir", "polygraphy")

GUARD = f"""
import importlib.abc, json, sys

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError(f"{{name}} is not for the runtime", name=name)

sys.meta_path.insert(0, Guard())

def strangers():
    return sorted(name for name in {FORBIDDEN!r} if name in sys.modules)
"""

EVERY_MODULE = """
import importlib, pkgutil
import amodal.engines, amodal.runtime

names = []
for package in (amodal.runtime, amodal.engines):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("._kernels"):  # a library of ONNX Runtime's, no module
            continue
        importlib.import_module(module.name)
        names.append(module.name)
print(json.dumps({"strangers": strangers(), "names": names}))
"""

BOTH_STAGES = """
import numpy as np
import amodal

modal = np.zeros((3, 64, 64), np.uint8)
modal[:, 16:48, 20:40] = 255
rgb = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
with amodal.load(sys.argv[1]) as model:
    seen = model.segment(modal, depth=rgb[..., 0], steps=2)
    whole = model.complete(rgb, modal, seen.masks, seed=seen.noise, steps=2)
print(json.dumps({
    "strangers": strangers(),
    "masks": [list(seen.masks.shape), str(seen.masks.dtype)],
    "frames": [list(whole.frames.shape), str(whole.frames.dtype)],
}))
"""


def run(program: str, *arguments: object) -> Any:
    """Runs a program in a fresh interpreter; what its last line says, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_guard_keeps_forbidden_packages_out() -> None:
    attempt = """
try:
    import torch.nn
except ModuleNotFoundError as error:
    print(json.dumps(error.name))
"""
    assert run(GUARD + attempt) in ("torch", "torch.nn")


def test_every_module_of_the_runtime_and_the_engines_imports_without_torch_and_onnx() -> None:
    pytest.importorskip("onnxruntime")
    found = run(GUARD + EVERY_MODULE)
    assert found["strangers"] == []
    expected = {
        ".".join(["amodal", folder, *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        for folder in ("runtime", "engines")
        for root in [ROOT / folder]
        for path in root.rglob("*.py")
    }
    assert {*found["names"], "amodal.runtime", "amodal.engines"} == expected


def test_both_stages_of_a_bundle_run_without_torch_and_onnx(toy_bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = run(GUARD + BOTH_STAGES, toy_bundle)
    assert found["strangers"] == []
    assert found["masks"] == [[3, 64, 64], "bool"]
    assert found["frames"] == [[3, 64, 64, 3], "uint8"]


HEAVY = ("numpy", "cv2", "onnxruntime", "torch", "PIL", "pydantic", "pycocotools")


CALL = """
from amodal.cli import main
try:
    main([{argument!r}])
except SystemExit as done:
    assert not done.code
"""


@pytest.mark.parametrize(
    "program",
    [
        "import amodal; dir(amodal); amodal.__version__",
        CALL.format(argument="--help"),
        CALL.format(argument="--version"),
    ],
    ids=["import amodal", "amodal --help", "amodal --version"],
)
def test_a_bare_import_and_the_help_load_nothing_heavy(program: str) -> None:
    report = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    assert run(program + report) == []


def test_the_public_names_are_the_runtimes_own() -> None:
    import amodal
    from amodal.runtime import errors, loading, model
    from amodal.runtime.sampling import noise, schedule

    assert amodal.load is loading.load
    assert amodal.Model is model.Model
    assert amodal.NoiseStream is noise.NoiseStream
    assert amodal.Churn is schedule.Churn
    assert amodal.AmodalError is errors.AmodalError
    assert set(amodal.__all__) <= set(dir(amodal))
    assert all(getattr(amodal, name) for name in amodal.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = amodal.lode  # type: ignore[attr-defined]
