"""What the backends' libraries would report about their user: nothing is written, and no name is looked up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

# A library that is preloaded: it notes the names that are looked up, and finds none.
LOOKUPS = """
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  FILE *file = fopen(getenv("LOOKUPS"), "a");
  if (file) { fprintf(file, "%s\\n", name ? name : "?"); fclose(file); }
  return EAI_NONAME;
}
"""
LOAD = """
import sys, time
import amodal
with amodal.load("default", threads=1) as model, model.session.components.use("image_encoder"):
    time.sleep(float(sys.argv[1]))
"""
SINGLE_GRAPH = "from amodal.runtime.backends.onnxruntime import graph; graph.session_options(1, optimise=True)"
OPENVINO = """
import sys
from amodal.runtime.backends.openvino import _import
from amodal.runtime.errors import BackendUnavailableError
try:
    _import().Core()
except BackendUnavailableError:  # no bfloat16 here
    sys.modules["openvino"].Core()
assert "openvino_telemetry" not in sys.modules
"""
BY_ITSELF = "import onnxruntime"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "lookups.c").write_text(LOOKUPS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "lookups.so", folder / "lookups.c"], check=True)
    return folder / "lookups.so"


def traces(code: str, shim: Path, folder: Path, *args: str, **settings: str) -> tuple[list[str], list[str]]:
    """Runs Python with an empty home, as no CI job; returns the files it wrote there and the names it looked up."""
    home, lookups = folder / "home", folder / "lookups"
    home.mkdir()
    # Under CI the libraries report nothing, and the test could not fail.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, "HOME": str(home), "LD_PRELOAD": str(shim), "LOOKUPS": str(lookups), **settings}
    subprocess.run([sys.executable, "-c", code, *args], env=environment, check=True, timeout=120)
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return sorted(files), lookups.read_text().split() if lookups.exists() else []


@pytest.mark.parametrize("code", [LOAD, SINGLE_GRAPH], ids=["model", "graph"])
def test_onnxruntime_writes_nothing_into_the_home_of_its_user(code: str, shim: Path, tmp_path: Path) -> None:
    assert traces(code, shim, tmp_path, "0") == ([], [])


@pytest.mark.slow
def test_onnxruntime_looks_up_no_name_later_on(shim: Path, tmp_path: Path) -> None:
    # By itself, 1.32 looks one up after nine seconds.
    assert traces(LOAD, shim, tmp_path, "12") == ([], [])


def test_who_wants_the_telemetry_keeps_it(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "by itself").mkdir()
    usual, _ = traces(BY_ITSELF, shim, tmp_path / "by itself")
    files, _ = traces(LOAD, shim, tmp_path, "0", ORT_DISABLE_TELEMETRY="0")
    assert files == usual


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_writes_nothing_and_looks_up_no_name(shim: Path, tmp_path: Path) -> None:
    assert traces(OPENVINO, shim, tmp_path) == ([], [])
