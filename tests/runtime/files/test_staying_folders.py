"""Outputs that exist and stay where they are: empty folders, mount points, the current folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amodal.runtime.errors import OutputExistsError
from amodal.runtime.files import atomic
from amodal.runtime.files.atomic import check_output, staged_folder

MARKER = "result.json"


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(staging: Path, text: str = "new") -> None:
    (staging / MARKER).write_text(f'{{"files": ["masks/", "sheet.png", "{MARKER}"], "text": "{text}"}}')
    (staging / "masks").mkdir()
    (staging / "masks" / "0.png").write_text(text)
    (staging / "sheet.png").write_text(text)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is taken for a mount point; its rename fails, as that of a real one."""
    out, rename = tmp_path / "out", os.rename
    out.mkdir()

    def busy(source: Any, target: Any) -> None:
        if out in (Path(source), Path(target)):
            raise OSError(16, "Device or resource busy", str(source))
        rename(source, target)

    monkeypatch.setattr(atomic, "_is_mount", lambda place: place == out)
    monkeypatch.setattr(os, "rename", busy)
    return out


def test_an_empty_folder_needs_no_overwrite_and_stays_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    before = out.stat()
    check_output(out, marker=MARKER)
    with staged_folder(out, marker=MARKER) as staging:
        assert staging.is_relative_to(out)
        write(staging)
        assert [path.name[:13] for path in out.iterdir()] == [".out.partial-"]
    assert sorted(content(out)) == ["masks/0.png", MARKER, "sheet.png"]
    assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_file_system_with_its_lost_and_found_is_empty(tmp_path: Path) -> None:
    (tmp_path / "out" / "lost+found").mkdir(parents=True)
    with staged_folder(tmp_path / "out", marker=MARKER) as staging:
        write(staging)
    assert (tmp_path / "out" / "lost+found").is_dir()


def test_the_current_folder_stays_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("first", "second"):
        with staged_folder(".", overwrite=True, marker=MARKER) as staging:
            write(staging, text)
        assert Path("sheet.png").read_text() == text
    assert sorted(os.listdir()) == ["masks", MARKER, "sheet.png"]


def test_on_a_mount_point_overwrite_replaces_what_the_marker_lists_and_nothing_else(mounted: Path) -> None:
    with staged_folder(mounted, marker=MARKER) as staging:
        write(staging, "old")
        (staging / "rgba").mkdir()
        (staging / MARKER).write_text(f'{{"files": ["rgba/", "masks/", "../evil", "/etc", "", ".", "{MARKER}"]}}')
    (mounted / "notes.txt").write_text("theirs")
    with pytest.raises(OutputExistsError, match="not empty"), staged_folder(mounted, marker=MARKER):
        pytest.fail("the block must not run")
    with staged_folder(mounted, overwrite=True, marker=MARKER) as staging:
        write(staging)
        assert (mounted / "sheet.png").read_text() == "old"
    assert sorted(path.name for path in mounted.iterdir()) == ["masks", "notes.txt", MARKER, "sheet.png"]
    assert (mounted / "sheet.png").read_text() == (mounted / "masks" / "0.png").read_text() == "new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_exception_amid_the_moves_undoes_them(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, error: type[BaseException]
) -> None:
    if overwrite:
        with staged_folder(mounted, marker=MARKER) as staging:
            write(staging, "old")
    before, rename = content(mounted), os.rename

    def flaky(source: Any, target: Any) -> None:
        if Path(source).name == MARKER and "new" in Path(source).parts:
            assert (mounted / "sheet.png").read_text() == "new", "the marker is not last"
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", flaky)
    with pytest.raises(error), staged_folder(mounted, overwrite, MARKER) as staging:
        write(staging)
    assert content(mounted) == before
    assert not any(path.name.startswith(".") for path in mounted.iterdir())


KILLED = """
import os, sys
from amodal.runtime.files.atomic import staged_folder
rename = os.rename
left = int(sys.argv[2])
def dying(source, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    rename(source, target)
with staged_folder(".", overwrite=True, marker="result.json") as staging:
    for name in ("a", "b", "result.json"):
        (staging / name).write_text(sys.argv[1])
    os.rename = dying
"""


@pytest.mark.parametrize("moves", range(7))
def test_what_a_kill_amid_the_moves_left_is_put_right_by_the_next_run(tmp_path: Path, moves: int) -> None:
    """Six moves replace three files; the marker's are the first and the last."""
    out = tmp_path / "out"
    out.mkdir()

    def run(text: str, moves: int) -> int:
        code = [sys.executable, "-c", KILLED, text, str(moves)]
        return subprocess.run(code, cwd=out, check=False).returncode

    assert run("old", 99) == 0
    (out / "theirs").write_text("kept")
    assert run("new", moves) == (0 if moves == 6 else -9)
    if moves < 6:
        assert (out / MARKER).exists() == (moves == 0)
        with staged_folder(tmp_path / "out" / "probe"):  # another output does not touch it
            pass
        with pytest.raises(OutputExistsError, match="exists already"), staged_folder(out, marker=MARKER):
            pytest.fail("the block must not run")
        shutil.rmtree(out / "probe")
    text = "new" if moves == 6 else "old"
    assert content(out) == {"a": text, "b": text, MARKER: text, "theirs": "kept"}


MOUNTED = """
mount -t tmpfs -o size=1m tmpfs "$1" && cd / && exec "$2" -c '
import sys
from amodal.runtime.files.atomic import staged_folder
for text in ("old", "new"):
    with staged_folder(sys.argv[1], text == "new", "result.json") as staging:
        (staging / "result.json").write_text(text)
print(open(sys.argv[1] + "/result.json").read())
' "$1"
"""
BOUND = MOUNTED.replace("-t tmpfs -o size=1m tmpfs", '--bind "$1"')


@pytest.mark.parametrize("script", [MOUNTED, BOUND], ids=["another file system", "the same file system"])
def test_a_real_mount_point_is_written_into(tmp_path: Path, script: str) -> None:
    out = tmp_path / "a folder"
    out.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    done = subprocess.run(
        [*own, "sh", "-c", script, "sh", out, sys.executable], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "new\n"), done.stderr
