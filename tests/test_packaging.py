"""What is installed: the wheel and the kernels, which are a distribution of their own. `.ci/run` builds both."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import pytest

import amodal

from .places import ROOT

setuptools = pytest.importorskip("setuptools", minversion="77")
KERNELS = ROOT / "runtime" / "backends" / "onnxruntime" / "kernels"


def described(folder: Any) -> dict[str, Any]:
    from setuptools.compat.py310 import tomllib

    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))  # type: ignore[no-any-return]


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function from the command of a build to what `setup.py` compiles in it."""

    def found(command: str) -> list[Any]:
        given: dict[str, Any] = {}
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["setup.py", command])
        monkeypatch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
        runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
        return given["ext_modules"]  # type: ignore[no-any-return]

    return found


def test_the_package_the_kernels_and_the_module_have_one_version() -> None:
    assert described(ROOT)["project"]["version"] == amodal.__version__
    assert described(KERNELS)["project"]["version"] == amodal.__version__


def test_a_wheel_is_pure_python_and_a_checkout_compiles_the_kernels(extensions: Any) -> None:
    assert extensions("bdist_wheel") == []
    assert extensions("sdist") == []
    [kernels] = extensions("editable_wheel")
    assert kernels.optional
    assert all((ROOT / file).is_file() for file in [*kernels.sources, *kernels.depends])


def test_extras_that_are_installed_together_do_not_overwrite_each_other() -> None:
    """onnxruntime and onnxruntime-gpu are one import package."""
    extras = described(ROOT)["project"]["optional-dependencies"]
    with_gpu = {name for name, needs in extras.items() if any(need.startswith("onnxruntime-gpu") for need in needs)}
    with_cpu = {name for name, needs in extras.items() if any(need.startswith("onnxruntime>") for need in needs)}
    assert with_gpu == {"cuda"}
    assert not with_gpu & with_cpu
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for line in document.read_text("utf-8").splitlines():
            together = [set(part.split("]")[0].split(",")) for part in line.split("[")[1:] if "pip install" in line]
            assert not any(names & with_gpu and names & with_cpu for names in together), f"{document.name}: {line}"
