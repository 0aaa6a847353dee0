"""Every error that amodal raises on purpose, in one tree.

    AmodalError
    ├── InputError           what the caller handed in: files, arrays, options
    │   └── OutputExistsError
    ├── BundleError          the bundle on disk
    │   ├── BundleNotFoundError
    │   ├── BundleCorruptError
    │   └── BundleVersionError
    ├── CheckpointError      the weights to convert (export)
    ├── ExportError          a graph that could not be made, or that differs from its module
    ├── EngineError          a graph compiled for a backend and target
    │   ├── EngineNotFoundError
    │   ├── EngineStaleError
    │   ├── EngineCorruptError
    │   └── EngineBuildError
    ├── BackendError         what executes
    │   └── BackendUnavailableError
    ├── MemoryBudgetError    no way to run within the memory allowed
    ├── MissingDependencyError   an optional package that this call needs
    ├── NonFiniteError       NaN or infinity in the latents
    └── OutputError          results that could not be written (disk full, no permission)

A message is one sentence or two: what was wrong (file, value), what was expected, and which command or argument fixes
it. It names arguments as Python does, alone (`vram`) or with a value (`memory="sequential"`), between backticks; the
command line replaces these by its options (`--memory sequential`), prints the message without a traceback, and exits
with `exit_code`. Where a message names no argument, it adds the option of the error's `field`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AmodalError(Exception):
    """Base of everything amodal raises on purpose.

    Attributes:
        field: the Python name of the argument at fault (`steps`, `vram`, `masks`); None where no single one is.
    """

    exit_code = 2

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def argument(field: str) -> Iterator[None]:
    """Makes `field` the argument at fault of every AmodalError that leaves the block, or the decorated function."""
    try:
        yield
    except AmodalError as error:
        error.field = field
        raise


class InputError(AmodalError, ValueError):
    """Something the caller handed in is missing, unreadable, or of the wrong shape, dtype or range."""


class OutputExistsError(InputError):
    """The output folder is there already and overwriting was not asked for."""


class BundleError(AmodalError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no finished bundle at the path given."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, truncated, or differs from the hash in the manifest."""


class BundleVersionError(BundleError):
    """The manifest was written by a newer amodal, or for a family this one does not know."""


class CheckpointError(AmodalError):
    """A checkpoint is incomplete, misshapen, or in a format that is not read."""


class ExportError(AmodalError):
    """A component could not be exported, or its graph differs from the module by more than the tolerance."""


class EngineError(AmodalError):
    """An engine cannot be used or made."""


class EngineNotFoundError(EngineError):
    """No engine was built for this component, backend and target."""


class EngineStaleError(EngineError):
    """An engine was built from another graph, by another version, for another target, or with other options."""


class EngineCorruptError(EngineError):
    """An engine's file or record is missing, truncated, or differs from its hash."""


class EngineBuildError(EngineError):
    """A graph could not be compiled."""


class BackendError(AmodalError):
    """A backend failed while loading or running a component."""


class BackendUnavailableError(BackendError):
    """A backend was asked for by name and cannot be used here."""


class MemoryBudgetError(AmodalError, MemoryError):
    """Nothing fits into the memory that was allowed; raised before anything is loaded."""


class MissingDependencyError(AmodalError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class NonFiniteError(AmodalError, ArithmeticError):
    """The latents became NaN or infinite, or what the VAE decoded from them.

    Attributes:
        step: 0-based index of the first sampler step after which a latent was not finite; that of the last one, if it
            was the decoder that overflowed.
        sigma: the noise level of that step.
    """

    def __init__(self, step: int, sigma: float, message: str | None = None) -> None:
        self.step = step
        self.sigma = sigma
        super().__init__(
            message
            or f"The latents were not finite after step {step} (sigma {sigma:.4g}): the model overflowed; "
            "export it again with `amodal export --precision fp32`, or check the checkpoint's weights."
        )

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[int, float, str]]:
        """Its message alone would not make it again where another process hands it over."""
        return type(self), (self.step, self.sigma, str(self))


class OutputError(AmodalError, OSError):
    """Results could not be written; nothing was left behind."""


def first_line(error: BaseException) -> str:
    """What an error says, without what follows in further lines; its type's name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
