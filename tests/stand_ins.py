"""How tests put the stand-ins for CuPy and TensorRT in the place of the real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amodal.engines import build

from .places import STAND_IN


def stand_in_module(name: str) -> ModuleType:
    """A stand-in (`cupy`, `tensorrt`) as a module of its own, which nothing else imports."""
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", STAND_IN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget_stand_ins() -> None:
    """The next import of TensorRT or CuPy finds whatever is then on the path."""
    for name in ("tensorrt", "cupy"):
        sys.modules.pop(name, None)


class StandIn:
    """TensorRT's stand-in and a GPU, as new processes find them; with `here`, this process too.

    Args:
        calls: file that gets what was asked of the compiler.
        usual: the trouble of building where `set` names no other.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, calls: Path, here: bool = False, usual: str | None = None
    ) -> None:
        self._patch, self._calls, self._here, self._usual = monkeypatch, calls, here, usual
        monkeypatch.setenv("PYTHONPATH", str(STAND_IN), prepend=os.pathsep)
        monkeypatch.setattr(build, "gpus", lambda: [{"name": "RTX 3090", "compute_cap": "8.6"}])
        if here:
            monkeypatch.syspath_prepend(str(STAND_IN))
        self.set()

    def set(self, version: str = "10.13.2", trouble: str | None = None, **more: Any) -> None:
        """Says what the next import finds.

        Args:
            trouble: what goes wrong while building.
            more: `rtx`, as TensorRT for RTX is; `invalid`, what it says of engines; `driver`, whose kernels it has.
        """
        asked = {"version": version, "trouble": trouble or self._usual, "calls": str(self._calls), **more}
        self._patch.setenv("STAND_IN", json.dumps(asked))
        if self._here:
            forget_stand_ins()  # not by the patch, which would bring them back at its end

    @property
    def calls(self) -> list[list[Any]]:
        """What was asked of the compiler, in order."""
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    @property
    def waits(self) -> int:
        """How often this process waited for the device."""
        return int(sys.modules["cupy"].waits)
