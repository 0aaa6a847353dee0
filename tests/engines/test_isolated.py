"""Commands in processes of their own end with what started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from amodal.engines import isolated


class TerminatedError(Exception):
    pass


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_that_comes_while_a_process_is_started_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    def terminate(number: int, _: Any) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    monkeypatch.setattr(isolated.subprocess, "Popen", interrupted)
    try:
        with pytest.raises(TerminatedError):
            isolated.run_isolated([sys.executable, "-c", "import time; time.sleep(100)"], 100)
        assert started[0].poll() is not None
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)
