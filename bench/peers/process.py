"""A peer in its own process: it loads once, then runs a clip on each request."""

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

from ..reference.same_clip import Outputs
from ..running.memory import Sampler, host_peak
from ..running.memory import device_peak as peak_on_gpu


class LoadedPeer(NamedTuple):
    """A peer that is ready to run.

    Attributes:
        description: of what runs. half: whether it rounds to half precision anywhere.
        clip: runs the clip and returns its outputs on the host, with latents if its argument is True.
        counters: of GPU memory, sampled during the first clip; empty on a CPU.
        allocated: returns the peak in bytes of the peer's own allocator; None if it does not report it.
    """

    description: str
    half: bool
    clip: Callable[[bool], Outputs]
    counters: Mapping[str, Callable[[], int]] = {}
    allocated: Callable[[], int] | None = None


class PeerClip(NamedTuple):
    """A clip that a peer ran: its seconds, its outputs, and the peaks of the process so far, in bytes."""

    seconds: float
    outputs: Outputs
    host_peak: int
    device_peak: int | None
    allocator_peak: int | None


class PeerError(BackendError):
    """A peer could not be loaded, failed or died.

    Attributes:
        kind: name of the exception in the process; empty if the process died.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        self.kind = kind
        super().__init__(message)


class PeerProcess:
    """Starts a peer and waits until it is loaded.

    Args:
        load: creates the peer in the new process; pickled.
        log: file for the output of the process.

    Raises:
        PeerError: it cannot be loaded, or died.
    """

    def __init__(self, load: Callable[[], LoadedPeer], log: Path) -> None:
        context = mp.get_context("spawn")
        self._log = log
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, log), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.description, self.half = self._receive()
        except BaseException:
            self.close()
            raise

    def clip(self, trace: bool) -> PeerClip:
        """Runs a clip; `trace` keeps its latents. Raises PeerError if the peer fails or dies."""
        with contextlib.suppress(OSError):  # it died before: `_receive` raises
            self._pipe.send(trace)
        clip: PeerClip = self._receive()
        return clip

    def close(self) -> None:
        """Ends the process, even during a clip."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(1)
        self._process.kill()
        self._process.join()

    def _receive(self) -> Any:
        try:
            result = self._pipe.recv()
        except (EOFError, OSError):
            raise PeerError(self._death()) from None
        if isinstance(result, PeerError):
            raise result
        return result

    def _death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was ended by {name}" + (", as happens when memory runs out" if name == "SIGKILL" else "")
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            how += f"; its last line: {lines[-1][:300]}" if lines else ""
        return f"its process {how}."


def _serve(pipe: Connection, load: Callable[[], LoadedPeer], log: Path) -> None:
    """Runs in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    with log.open("w") as file:  # libraries print, compilers most of all; standard output is for results
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        peer = load()
        pipe.send((peer.description, peer.half))
        device_peak = None
        while (trace := pipe.recv()) is not None:
            if device_peak is None and peer.counters:
                with Sampler(peer.counters) as sampler:
                    clip = _run(peer, trace)
                device_peak = peak_on_gpu(sampler.bytes)
            else:
                clip = _run(peer, trace)
            pipe.send(clip._replace(device_peak=device_peak))
    except (EOFError, BrokenPipeError):  # the parent has ended
        return
    except AmodalError as error:
        pipe.send(PeerError(str(error), type(error).__name__))
    except Exception as error:  # noqa: BLE001 (libraries raise anything; the other peers continue)
        first = next(iter(str(error).strip().splitlines()), "no message")
        kind = type(error).__name__
        pipe.send(PeerError(f"it failed: {kind}: {first[:300]}", kind))


def _run(peer: LoadedPeer, trace: bool) -> PeerClip:
    begin = time.perf_counter()
    outputs = peer.clip(trace)
    seconds = time.perf_counter() - begin
    peak = host_peak(int(psutil.Process().memory_info().rss))
    return PeerClip(seconds, outputs, peak, None, None if peer.allocated is None else peer.allocated())
