"""What is asked of CuPy, held against the real one, which can be imported without a GPU; skipped where it is not there.

CuPy is numpy's names with gaps, and the stand-in for it computes with numpy: a name or an argument that CuPy does not
have would be found by nobody else without a GPU.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amodal

from ... import places

SOURCES = Path(amodal.__file__).parent
STAND_IN = places.STAND_IN / "cupy.py"
ROOT = re.compile(r"(?:\w+\.)*_?(?:xp|cupy)")
"""How our sources call the module: `xp`, `self._xp`, `backend.xp`, `cupy`."""

ONLY_HERE = {"waits", "uploads", "downloads", "events", "freed", "elsewhere", "failing", "refusing", "launches"} | {
    *("free_bytes", "lazy", "queue", "CUDARuntimeError", "ctypes", "itertools", "partial", "sys"),
    *("threading", "time", "types", "np"),
}
"""Names of the stand-in by which tests look into it."""


def real() -> Any:
    cupy = pytest.importorskip("cupy")
    if Path(cupy.__file__).parent == STAND_IN.parent:
        pytest.skip("the stand-in is in CuPy's place")
    return cupy


def assigned(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """What is assigned to what; `a, b = c, d` is two."""
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def chains(source: str) -> Iterator[tuple[str, ast.AST]]:
    """Dotted names below the module, `cuda.runtime.memGetInfo`, each with its node; local names for them followed."""
    tree = ast.parse(source)
    local: dict[str, str] = {}

    def below(node: ast.expr) -> str | None:
        text = ast.unparse(node)
        if ROOT.fullmatch(text):
            return ""
        if text in local:
            return local[text]
        if isinstance(node, ast.Attribute):
            owner = below(node.value)
            return None if owner is None else f"{owner}.{node.attr}".lstrip(".")
        if isinstance(node, ast.Call) and below(node.func) == "cuda.get_current_stream":
            return "cuda.Stream.null"  # one that can be had without a GPU
        return None

    for _ in range(3):
        for node in ast.walk(tree):
            for target, value in assigned(node):
                found = below(value)
                if found:
                    local[ast.unparse(target)] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Call):
            name = below(node.func if isinstance(node, ast.Call) else node)
            if name:
                yield name, node


def troubles(source: str, cupy: Any) -> set[str]:
    found = set()
    for name, node in chains(source):
        there = cupy
        for part in name.split("."):
            if not hasattr(there, part):
                found.add(f"there is no {name}")
                break
            there = getattr(there, part)
        else:
            if isinstance(node, ast.Call):
                found |= {f"{name} takes no {k.arg}" for k in node.keywords if k.arg and not _takes(there, k.arg)}
    return found


def _takes(function: Any, keyword: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a ufunc, or compiled: its documentation begins with its signature
        return keyword in ("out", "casting", "dtype") or f"{keyword}=" in (function.__doc__ or "")
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def sources() -> Iterator[Path]:
    for folder in ("runtime", "engines", "bench"):
        yield from (f for f in sorted((SOURCES / folder).rglob("*.py")) if any(chains(f.read_text())))


def test_all_that_is_asked_of_cupy_is_there() -> None:
    cupy = real()
    asked = {name for file in sources() for name, _ in chains(file.read_text())}
    assert {"take", "cuda.runtime.memGetInfo", "cuda.Stream.null.begin_capture", "concatenate"} <= asked
    assert {file.name: found for file in sources() if (found := troubles(file.read_text(), cupy))} == {}


@pytest.mark.parametrize(
    ("source", "trouble"),
    [
        ("xp.vander2(x)", "there is no vander2"),
        ("s = self.xp.cuda.get_current_stream()\ns.wait_for(e)", "there is no cuda.Stream.null.wait_for"),
        ("xp.clip(x, 0, 1, where=y)", "clip takes no where"),
        ("runtime = cupy.cuda.runtime\nruntime.memInfo()", "there is no cuda.runtime.memInfo"),
    ],
)
def test_what_cupy_lacks_would_be_found(source: str, trouble: str) -> None:
    assert trouble in troubles(source, real())


def test_the_stand_in_offers_no_name_that_cupy_lacks() -> None:
    cupy = real()
    code = (
        "import cupy, json, types; public = lambda x: [n for n in vars(x) if not n.startswith('_')];"
        "print(json.dumps({'': public(cupy), 'ndarray': public(cupy.ndarray), 'cuda': public(cupy.cuda),"
        "'cuda.runtime': public(cupy.cuda.runtime), 'cuda.Stream': public(cupy.cuda.Stream)}))"
    )
    path = {**os.environ, "PYTHONPATH": str(STAND_IN.parent)}
    said = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True).stdout
    offered: dict[str, list[str]] = json.loads(said)
    assert "concatenate" in offered[""]
    for owner, names in offered.items():
        there = cupy
        for part in filter(None, owner.split(".")):
            there = getattr(there, part)
        assert {n for n in names if not hasattr(there, n)} - ONLY_HERE == set(), owner
