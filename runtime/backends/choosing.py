"""Chooses the backend: the one named, or with `auto` the first that can run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..errors import BackendUnavailableError, EngineError, EngineNotFoundError
from .backend import Backend
from .registry import DEFAULT, ENGINE_BACKENDS, availability, create_named, on_gpu

AUTO = "auto"

Opened = TypeVar("Opened")


class Choice(NamedTuple):
    """A backend and its options, as `create` takes them."""

    name: str = DEFAULT
    device: str | None = None
    threads: int | None = None
    vram: int | None = None

    def create(self) -> Backend:
        """Creates the backend."""
        return create_named(self.name, device=self.device, threads=self.threads, vram=self.vram)


def preferred(device: str | None = None) -> list[str]:
    """Lists the backends that `auto` tries: those that run engines, which need a GPU, then the default.

    `openvino` is not among them: it rounds to bfloat16, which the caller must choose.
    """
    return [*(ENGINE_BACKENDS if (device or "cuda").startswith("cuda") else ()), DEFAULT]


def create(
    name: str = DEFAULT, *, device: str | None = None, threads: int | None = None, vram: int | None = None
) -> Backend:
    """Creates a backend by name, or with `auto` the first usable one; options and errors as in `create_named`."""
    return open_chosen(Choice(name, device, threads, vram), Choice.create)


def open_chosen(choice: Choice, opening: Callable[[Choice], Opened]) -> Opened:
    """Calls `opening` with the choice; for `auto` with the first preferred backend that is usable and has its engines.

    `auto` drops options that a backend does not take: threads on a GPU, and `vram` on a CPU. It warns of engines that
    exist but cannot be used.

    Raises:
        BackendUnavailableError: no backend is usable; the message says why for each.
        EngineError: the usable backends have no usable engines.
    """
    if choice.name != AUTO:
        return opening(choice)
    reasons: list[str] = []
    refused: EngineError | None = None
    for name in preferred(choice.device):
        found = availability(name)
        if not found.usable:
            reasons.append(f"{name}: {found.reason}")
            continue
        gpu = on_gpu(name, choice.device)
        tried = Choice(name, choice.device, None if gpu else choice.threads, choice.vram if gpu else None)
        try:
            return opening(tried)
        except EngineError as error:
            refused = refused or error
            if not isinstance(error, EngineNotFoundError):
                warnings.warn(f"{name} was passed over: {error}", stacklevel=3)
    raise refused or BackendUnavailableError(f"no backend is usable here ({'; '.join(reasons)}).")
