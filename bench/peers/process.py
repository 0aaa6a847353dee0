"""A peer in a process of its own: it loads once, then runs a clip whenever it is asked, until it ends or dies."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from amodal.runtime.errors import AmodalError, BackendError
from amodal.runtime.families.diffusion_vas.config import StageName

from ..reference.same_clip import StageOutput
from ..running.memory import Sampler, host_peak
from ..running.memory import device_peak as highest_on_gpu

RunClip = Callable[[bool], dict[StageName, StageOutput]]
"""Draws the clip, with its latents or without; its results are on the host when it returns."""


class LoadedPeer(NamedTuple):
    """A peer, ready.

    Attributes:
        description: of what runs. half: whether it rounds to half anywhere.
        counters: of GPU memory, sampled during the first clip; none on a CPU.
        allocated: bytes that its own allocator handed out at the most; None where it does not say.
    """

    description: str
    half: bool
    clip: RunClip
    counters: Mapping[str, Callable[[], int]] = {}
    allocated: Callable[[], int] | None = None


class Ran(NamedTuple):
    """A clip that a peer ran: its seconds, what it drew, and the peaks of its process until then, in bytes."""

    seconds: float
    drawn: dict[StageName, StageOutput]
    host_peak: int
    device_peak: int | None
    allocator_peak: int | None


class PeerError(BackendError):
    """A peer could not be loaded, failed or died.

    Attributes:
        kind: name of what it raised; empty if it died.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        self.kind = kind
        super().__init__(message)


class PeerProcess:
    """Starts a peer and waits until it is loaded.

    Args:
        load: importable; makes the peer in the new process from `args`, which can be pickled.
        log: file for what it prints.

    Raises:
        PeerError: it cannot be loaded, or died.
    """

    def __init__(self, load: Callable[..., LoadedPeer], args: tuple[Any, ...], log: Path) -> None:
        context = mp.get_context("spawn")
        self._log = log
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, args, log), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.description, self.half = self._receive()
        except BaseException:
            self.close()
            raise

    def clip(self, trace: bool) -> Ran:
        """Runs a clip; `trace` keeps its latents.

        Raises:
            PeerError: it failed, or died.
        """
        with contextlib.suppress(OSError):  # it died before: `_receive` says so
            self._pipe.send(trace)
        ran: Ran = self._receive()
        return ran

    def close(self) -> None:
        """Ends the process, in the middle of a clip too."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(1)
        self._process.kill()
        self._process.join()

    def _receive(self) -> Any:
        try:
            what, value = self._pipe.recv()
        except (EOFError, OSError):
            raise PeerError(self._death()) from None
        if what == "failed":
            raise PeerError(value[1], value[0])
        return value

    def _death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            memory = ", as happens when memory runs out" if name == "SIGKILL" else ""
            how = f"was ended by {name}{memory}"
        with contextlib.suppress(OSError):
            said = self._log.read_text(errors="replace").strip().splitlines()
            if said:
                how += f"; its last line: {said[-1][:300]}"
        return f"its process {how}."


def _serve(pipe: Connection, load: Callable[..., LoadedPeer], args: tuple[Any, ...], log: Path) -> None:
    """In the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; whoever started this one ends it
    with log.open("w") as file:  # libraries print, compilers most of all; standard output is for results
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        loaded = load(*args)
        pipe.send(("ready", (loaded.description, loaded.half)))
        device_peak = None
        while (trace := pipe.recv()) is not None:
            if device_peak is None and loaded.counters:
                with Sampler(dict(loaded.counters)) as sampler:
                    seconds, drawn = _timed(loaded.clip, trace)
                device_peak = highest_on_gpu(sampler.bytes)
            else:
                seconds, drawn = _timed(loaded.clip, trace)
            peak = host_peak([int(psutil.Process().memory_info().rss)])
            allocated = None if loaded.allocated is None else loaded.allocated()
            pipe.send(("ran", Ran(seconds, drawn, peak, device_peak, allocated)))
    except (EOFError, BrokenPipeError):  # nobody is there any more
        return
    except AmodalError as error:
        pipe.send(("failed", (type(error).__name__, str(error))))
    except Exception as error:  # noqa: BLE001 (other people's libraries raise anything; the others go on)
        first = next(iter(str(error).strip().splitlines()), "no message")
        pipe.send(("failed", (type(error).__name__, f"it failed: {type(error).__name__}: {first[:300]}")))


def _timed(clip: RunClip, trace: bool) -> tuple[float, dict[StageName, StageOutput]]:
    begin = time.perf_counter()
    drawn = clip(trace)
    return time.perf_counter() - begin, drawn
