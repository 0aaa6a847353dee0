"""What models leave of themselves in a process that goes on: nothing, of its threads' modes and of threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amodal.runtime.backends.denormals import denormals_as_zero

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="the mode is set by glibc"
)

# Each in a process of its own: the first session that a process makes is what matters.
BEGIN = """
import os, threading, time
import numpy as np
import amodal

def denormal():
    return float((np.full(4, 1e-30, np.float32) * np.float32(1e-10))[0]) > 0

def elsewhere(run):
    found = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]

def threads():
    return len(os.listdir("/proc/self/task"))

def settle(wanted):
    # Threads that were told to end may take a moment.
    end = time.monotonic() + 60
    while threads() > wanted and time.monotonic() < end:
        time.sleep(0.1)

modal = np.zeros((8, 64, 128), bool)
modal[:, 20:40, 30:60] = True
depth = np.linspace(0, 1, modal.size, dtype=np.float32).reshape(modal.shape)
"""


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_mode_is_for_the_thread_and_ends() -> None:
    def product() -> float:
        return float((np.full(4, 1e-30, np.float32) * np.float32(1e-10))[0])

    before = product()
    with denormals_as_zero():
        assert product() == 0
        with denormals_as_zero():
            pass
        assert product() == 0
    with pytest.raises(KeyError), denormals_as_zero():
        raise KeyError
    assert product() == before


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_callers_threads_keep_their_mode_and_the_models_end(backend: str) -> None:
    from amodal.runtime.backends import availability

    if not availability(backend).usable:
        pytest.skip(f"{backend} is not usable here")
    code = """
def run():
    with amodal.load("default", BACKEND, threads=2) as model:
        assert denormal()
        model.segment(modal, depth=depth, steps=2)
        assert denormal()
        assert elsewhere(denormal)
        assert elsewhere(lambda: model.segment(modal, depth=depth, steps=1) and denormal())
        inside = threads()
    assert not any("amodal" in thread.name for thread in threading.enumerate())
    return inside

assert denormal()
run()  # starts what libraries keep for the process
time.sleep(0.5)
before = threads()
assert run() > before
assert denormal()
settle(before)
print(max(0, threads() - before))
"""
    assert ran(code.replace("BACKEND", repr(backend))) == "0"


@pytest.mark.parametrize("first", ["here", "elsewhere", "by somebody else"])
def test_within_a_session_every_thread_takes_denormals_for_zero(first: str, tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx.helper")
    values = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xyz"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "y"], ["z"])], "product", values[:2], values[2:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "product.onnx").write_bytes(made.SerializeToString())
    code = """
from pathlib import Path
from types import SimpleNamespace
import onnxruntime
from amodal.runtime import backends

file, first = Path(FILE), FIRST
backend = backends.create(threads=2)
load = lambda lanes=1: backend.load(SimpleNamespace(kind="product"), [file], lanes)
if first == "by somebody else":
    onnxruntime.InferenceSession(str(file))
given = {"x": np.full(2_000_000, 1e-30, np.float32), "y": np.full(2_000_000, 1e-10, np.float32)}
both = [elsewhere(load) if first == "elsewhere" else load(), load(2)]
for component in both:
    assert not component(given)["z"].any()
    assert not elsewhere(lambda: component(given)["z"].any())
    assert not any(found["z"].any() for found in component.map([given] * 3))
    assert denormal()
    component.close()
    component.close()
print(denormal(), [thread.name for thread in threading.enumerate()])
"""
    code = code.replace("FILE", repr(str(tmp_path / "product.onnx"))).replace("FIRST", repr(first))
    assert ran(code) == "True ['MainThread']"
