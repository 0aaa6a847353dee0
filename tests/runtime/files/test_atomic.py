from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError, OutputError, OutputExistsError
from amodal.runtime.files import results
from amodal.runtime.files.atomic import check_output, staged_folder

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ours(folder: Path, text: str = "old") -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text(text)
    return folder


def test_the_folder_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with staged_folder(out) as staging:
        assert staging.parent == out.parent
        assert staging.name.startswith(f".out.partial-{os.getpid()}-")
        (staging / "sub").mkdir()
        (staging / "sub" / "x").write_text("1")
        assert not out.exists()
    assert (out / "sub" / "x").read_text() == "1"
    assert names(out.parent) == ["out"]


def test_the_folder_gets_the_permissions_of_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with staged_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_behind_by_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    def run() -> None:
        with staged_folder(tmp_path / "new" / "er" / "out") as staging:
            (staging / "x").write_text("1")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        run()
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_while_overwriting_leaves_the_old_folder_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    out = ours(tmp_path / "out")

    def run() -> None:
        with staged_folder(out, overwrite=True, marker="result.json") as staging:
            (staging / "result.json").write_text("new")
            raise error

    with pytest.raises(error):
        run()
    assert (out / "sub" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    ours(tmp_path / "out")
    with (
        pytest.raises(OutputExistsError, match=r"out exists already .*; replace it with `overwrite=True` or .* `out`"),
        staged_folder(tmp_path / "out", marker="result.json"),
    ):
        pytest.fail("the block must not run")
    with pytest.raises(OutputExistsError, match="overwrite"):
        check_output(tmp_path / "out", marker="result.json")
    with pytest.raises(OutputExistsError, match="not empty; give another folder"):
        check_output(tmp_path / "out")
    check_output(tmp_path / "other")
    assert names(tmp_path) == ["out"]


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    out = ours(tmp_path / "out")
    with staged_folder(out, overwrite=True, marker="result.json") as staging:
        (staging / "new").touch()
        assert (out / "sub" / "a.txt").read_text() == "old"
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("marker", ["result.json", None])
def test_overwrite_leaves_alone_what_amodal_did_not_write(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with (
        pytest.raises(OutputExistsError, match=r"photos is not empty and holds no .*, so amodal did not write it"),
        staged_folder(tmp_path / "photos", overwrite=True, marker=marker),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path / "photos") == ["one.jpg"]


def test_overwrite_never_replaces_the_home_folder_even_with_a_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ours(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home / "sub"))
    for folder in (home, home / "sub", Path("/")):
        with pytest.raises(OutputExistsError, match="holds the home folder and is never replaced"):
            check_output(folder, overwrite=True, marker="result.json")


def test_overwrite_never_deletes_what_is_being_read(tmp_path: Path) -> None:
    out = ours(tmp_path / "out")
    with pytest.raises(InputError, match=r"a\.txt lies in .*out, which `overwrite` would delete"):
        check_output(out, True, "result.json", inputs=[tmp_path, out / "sub" / "a.txt"])
    check_output(out, True, "result.json", inputs=[tmp_path / "frames"])


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError, match="out is a file, expected a folder"):
        check_output(tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match=r"deep cannot be made, .*out is a file"):
        check_output(tmp_path / "out" / "very" / "deep")


def test_a_symlink_stays_and_the_folder_behind_it_is_replaced(tmp_path: Path) -> None:
    ours(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with staged_folder(tmp_path / "link", overwrite=True, marker="result.json") as staging:
        (staging / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["new"]


def test_a_loop_of_symlinks_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError):
        check_output(tmp_path / "a")
    with pytest.raises(InputError, match="another folder for `out`"):
        check_output("a\0b")


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("PIL.Image.Image.save", full)

    def run() -> None:
        with staged_folder(tmp_path / "out") as staging:
            results.write_masks_png(staging / "amodal_masks", np.ones((2, 4, 4), np.bool_))

    with pytest.raises(OutputError, match=r"out could not be written, the disk is full; nothing was left behind"):
        run()
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_while_syncing_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ours(tmp_path / "out")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    def run() -> None:
        with staged_folder(out, overwrite=True, marker="result.json") as staging:
            (staging / "x").touch()

    with pytest.raises(OutputError, match="the disk is full"):
        run()
    assert names(tmp_path) == ["out"]
    assert (out / "result.json").read_text() == "old"


def test_real_writers_that_run_into_a_limit_are_explained(tmp_path: Path) -> None:
    code = """
import resource, sys
import numpy as np
from amodal.runtime import errors
from amodal.runtime.files import atomic, results
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
frames = np.random.default_rng(0).integers(0, 256, (1, 200, 200, 3)).astype(np.uint8)
writers = [
    lambda s: results.write_frames_png(s, frames),
    lambda s: results.write_json(s / "x", list(range(20000))),
    lambda s: np.save(s / "x.npy", frames),
    lambda s: frames.tofile(s / "x.bin"),
]
for write in writers:
    try:
        with atomic.staged_folder(sys.argv[1]) as staging:
            write(staging)
    except errors.OutputError as error:
        print(error)
"""
    run = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.count("out could not be written, ") == 4
    assert done.stdout.count("; nothing was left behind") == 4
    assert names(tmp_path) == []


@as_user
def test_a_folder_without_write_permission_is_explained(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with (
        pytest.raises(OutputError, match="permission denied"),
        staged_folder(tmp_path / "locked" / "a" / "out"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path / "locked") == []


def test_a_read_only_file_system_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(OutputError, match=r"out could not be written, the file system is read-only"),
        staged_folder(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")


def test_errors_that_are_not_about_the_output_pass_through(tmp_path: Path) -> None:
    def run(error: BaseException) -> None:
        with staged_folder(tmp_path / "out"):
            raise error

    with pytest.raises(PermissionError, match="weights"):
        run(PermissionError(errno.EACCES, "denied", "/elsewhere/weights.bin"))
    with pytest.raises(FileNotFoundError):
        run(FileNotFoundError(errno.ENOENT, "gone"))
    with pytest.raises(InputError, match="depth"):
        run(InputError("depth"))
    assert names(tmp_path) == []


def test_a_folder_made_by_somebody_else_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run() -> None:
        with staged_folder(out) as staging:
            (staging / "mine").touch()
            out.mkdir()
            (out / "theirs").touch()

    with pytest.raises(OutputExistsError, match="out exists already"):
        run()
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_if_the_new_folder_cannot_be_put_in_place_the_old_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ours(tmp_path / "out")
    rename = os.rename

    def flaky(source: Any, target: Any) -> None:
        if ".partial-" in str(source):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", flaky)

    def run() -> None:
        with staged_folder(out, overwrite=True, marker="result.json"):
            pass

    with pytest.raises(KeyboardInterrupt):
        run()
    assert (out / "result.json").read_text() == "old"
    assert names(tmp_path) == ["out"]


HOLD = """
import sys, time
from amodal.runtime.files.atomic import staged_folder
with staged_folder(sys.argv[1]) as staging:
    (staging / "x").write_text("1")
    print("in", flush=True)
    time.sleep(60)
"""


@contextmanager
def writer(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing, which is killed at the end, beyond any cleaning up."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("exists", [True, False])
def test_a_second_run_into_the_same_folder_is_told_before_it_works(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with writer(out) as process:
        for enter in (check_output, lambda out: staged_folder(out).__enter__()):
            with pytest.raises(OutputError, match=rf"another run \(pid {process.pid}\) is writing to .*out, .*; wait"):
                enter(out)
        with staged_folder(tmp_path / "other"):
            pass
    check_output(out)


def test_a_second_run_in_the_same_process_is_told_too(tmp_path: Path) -> None:
    with (
        staged_folder(tmp_path / "out"),
        pytest.raises(OutputError, match=rf"another run \(pid {os.getpid()}\)"),
        staged_folder(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out"]


def test_without_locks_the_pid_decides_and_what_is_unclear_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", no_locks)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f".out.partial-{int(gone.stdout)}-ab"
    left.mkdir()
    with staged_folder(tmp_path / "out"), pytest.raises(OutputError, match="another run"):
        check_output(tmp_path / "out")
    assert names(tmp_path) == [left.name, "out"]


@pytest.mark.parametrize("exists", [True, False])
def test_what_a_killed_process_left_is_cleared_away_by_the_next_run(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    home = out if exists else tmp_path
    if exists:
        out.mkdir()
    with writer(out):
        pass
    left = [name for name in names(home) if name.startswith(".out.partial-")]
    assert len(left) == 1
    (tmp_path / ".other.partial-1-x").mkdir()
    with staged_folder(out):
        assert left[0] not in names(home)
    assert names(tmp_path) == [".other.partial-1-x", "out"]
    assert names(out) == []


def test_a_leftover_does_not_block_whoever_got_its_pid(tmp_path: Path) -> None:
    left = tmp_path / f".out.partial-{os.getppid()}-ab"
    left.mkdir()
    with staged_folder(tmp_path / "out"):
        assert not left.exists()


def test_an_old_folder_that_a_killed_process_had_moved_aside_comes_back(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    aside = ours(tmp_path / f".out.replaced-{int(process.stdout)}-ab")
    with pytest.raises(OutputExistsError), staged_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert not aside.exists()
    assert (tmp_path / "out" / "result.json").read_text() == "old"
