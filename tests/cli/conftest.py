"""What the tests of the commands share: a clip on disk, and ways to issue a command."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.cli import lines, main

# Natural order, which is not the alphabet's.
NAMES = ("shot_8.png", "shot_9.png", "shot_10.png")
HEIGHT, WIDTH = 40, 56
# One thread is fastest for networks this small, above all on a busy machine.
QUICK = ("--steps", "2", "--threads", "1")


@pytest.fixture(autouse=True, scope="session")
def no_lines_of_progress() -> Iterator[None]:
    """Standard error has what a command says, however long a busy machine takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "EVERY", float("inf"))
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def issue(*args: object) -> Outcome:
    """A command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def start(*args: object, **options: Any) -> subprocess.Popen[str]:
    """A command, in a process of its own."""
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-c", "from amodal.cli import main; main()", *map(str, args)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **{**pipes, **options})


def ended(process: subprocess.Popen[str]) -> Outcome:
    """What a started command left behind, once it has."""
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


@dataclass(frozen=True)
class Clip:
    """Folders of three small frames, masks and depth, and the arrays in them."""

    frames: Path
    masks: Path
    depth: Path
    rgb: Any
    modal: Any

    @property
    def inputs(self) -> tuple[str, ...]:
        """As options of `amodal run`."""
        return ("--frames", str(self.frames), "--masks", str(self.masks), "--depth", str(self.depth))


def make_clip(root: Path) -> Clip:
    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 256, (len(NAMES), HEIGHT, WIDTH, 3), np.uint8)
    modal = np.zeros((len(NAMES), HEIGHT, WIDTH), bool)
    for i in range(len(NAMES)):
        modal[i, 8:30, 10 + 4 * i : 34 + 4 * i] = True
    depth = np.linspace(0, 65535, rgb[..., 0].size).reshape(modal.shape).astype(np.uint16)
    clip = Clip(root / "frames", root / "masks", root / "depth", rgb, modal)
    for folder, pictures in ((clip.frames, rgb), (clip.masks, modal * np.uint8(255)), (clip.depth, depth)):
        folder.mkdir(parents=True)
        for name, picture in zip(NAMES, pictures, strict=True):
            Image.fromarray(picture).save(folder / name)
    return clip


@pytest.fixture(scope="session")
def kept_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Not to be changed."""
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """To be damaged."""
    return make_clip(tmp_path / "clip")


@pytest.fixture(scope="session")
def toy_with_depth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A bundle of both stages and depth, exported by the command, and what it said; not to be changed."""
    for module in ("torch", "diffusers", "transformers", "onnx_ir"):
        pytest.importorskip(module)
    bundle = tmp_path_factory.mktemp("exported") / "toy"
    options = ("--size", "64x64", "--frames", "3", "--precision", "fp32", "--check", "none")
    outcome = issue("export", "--random", "tiny", *options, "-o", bundle)
    assert outcome.code == 0, outcome.err
    return bundle, outcome


@pytest.fixture(scope="session")
def both(toy_bundle: Path, kept_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """What a run of both stages wrote, and said; not to be changed."""
    out = tmp_path_factory.mktemp("both") / "out"
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "-o", out)
    assert outcome.code == 0, outcome.err
    return out, outcome


def leftovers(folder: Path) -> list[str]:
    """What an interrupted or failed command may not leave."""
    return [path.name for path in folder.iterdir() if ".partial-" in path.name or ".replaced-" in path.name]


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Issues a command with `-o OUT`; asserts one sentence, exit code 2 and nothing left; gives the sentence."""
    out = tmp_path / "OUT"

    def check(*args: object, with_out: bool = True) -> str:
        outcome = issue(*args, *(("-o", out) if with_out else ()))
        assert_refusal(outcome)
        assert capfd.readouterr().err == "", "a library wrote to standard error on its own"
        assert not out.exists()
        assert leftovers(tmp_path) == []
        return outcome.err

    return check


@pytest.fixture
def largest_file() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Files cannot grow beyond so many bytes, as if the disk were full."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def assert_refusal(outcome: Outcome, code: int = 2) -> None:
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("Error: ")
    assert line.endswith(".")
