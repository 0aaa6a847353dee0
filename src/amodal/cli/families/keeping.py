"""Models that stay loaded from one run to the next, for processes that run many clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from amodal.runtime import loading
from amodal.runtime.model import Model
from amodal.runtime.paths import PathLike
from amodal.runtime.progress import Progress, silent


class Keeper:
    """Keeps the model that was loaded last, and closes it when another one is needed."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._key = ""

    def model(self, bundle: PathLike, **settings: Any) -> Model:
        """Returns the model of a bundle with these settings of `amodal.runtime.loading.load`."""
        key = repr((str(bundle), sorted(settings.items(), key=lambda item: item[0])))
        if self._model is None or key != self._key:
            self.close()
            self._model, self._key = loading.load(bundle, **settings), key
        return self._model

    def close(self) -> None:
        """Closes the model."""
        if self._model is not None:
            self._model.close()
        self._model = None


_KEEPER: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


@contextmanager
def keeping(keeper: Keeper) -> Iterator[None]:
    """Has `load` in the block take models from `keeper`, and leave them there."""
    token = _KEEPER.set(keeper)
    try:
        yield
    finally:
        _KEEPER.reset(token)


@contextmanager
def load(bundle: PathLike, *, progress: Progress = silent, **settings: Any) -> Iterator[Model]:
    """Loads a bundle for the block, as `amodal.runtime.loading.load` does and with its arguments.

    A model that is kept tells nobody what it loads.
    """
    keeper = _KEEPER.get()
    if keeper is not None:
        yield keeper.model(bundle, **settings)
        return
    with loading.load(bundle, progress=progress, **settings) as model:
        yield model
