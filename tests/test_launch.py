"""Tests pass however they are launched: in the background of a shell, which ignores Ctrl-C, and under `nohup`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .places import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_children_are_interrupted_by_ctrl_c() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_run_that_ignores_ctrl_c_hands_it_back_to_its_children() -> None:
    """The test above, launched as `nohup pytest &` launches it: with SIGINT and SIGHUP ignored and no terminal."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "interrupted", __file__]

    def ignoring() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=ignoring,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
