"""All errors that amodal raises deliberately, in one tree.

    AmodalError
    ├── InputError               the caller's files, arrays or options
    │   └── OutputExistsError
    ├── BundleError              the bundle on disk
    │   ├── BundleNotFoundError
    │   ├── BundleCorruptError
    │   └── BundleVersionError
    ├── CheckpointError          the weights to convert (export)
    ├── ExportError              a graph that cannot be made, or that differs from its module
    ├── EngineError              a graph compiled for a backend and target
    │   ├── EngineNotFoundError
    │   ├── EngineStaleError
    │   ├── EngineCorruptError
    │   └── EngineBuildError
    ├── BackendError             what executes
    │   └── BackendUnavailableError
    ├── MemoryBudgetError        no way to run within the memory allowed
    ├── MissingDependencyError   an optional package that this call needs
    ├── NonFiniteError           NaN or infinity in the latents
    └── OutputError              results that cannot be written (disk full, no permission)

A message says in one or two sentences what was wrong (file, value), what was expected, and which command or argument
fixes it. Arguments appear as in Python between backticks, alone (`vram`) or with a value (`memory="sequential"`). The
command line replaces them by its options (`--memory sequential`), prints the message without a traceback, and exits
with `exit_code`. Where a message names no argument, it adds the option of the error's `field`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AmodalError(Exception):
    """Base of all errors that amodal raises deliberately.

    Attributes:
        field: Python name of the argument at fault (`steps`, `vram`, `masks`); None if no single one is.
    """

    exit_code = 2

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def argument(field: str) -> Iterator[None]:
    """Sets `field` on every AmodalError raised in the block or the decorated function."""
    try:
        yield
    except AmodalError as error:
        error.field = field
        raise


class InputError(AmodalError, ValueError):
    """An input is missing, unreadable, or of the wrong shape, dtype or range."""


class OutputExistsError(InputError):
    """The output folder exists and overwriting was not requested."""


class BundleError(AmodalError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no finished bundle at the path."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, truncated, or differs from the hash in the manifest."""


class BundleVersionError(BundleError):
    """The manifest was written by a newer amodal, or for an unknown family."""


class CheckpointError(AmodalError):
    """A checkpoint is incomplete, of wrong shapes, or in an unsupported format."""


class ExportError(AmodalError):
    """A component could not be exported, or its graph differs from the module by more than the tolerance."""


class EngineError(AmodalError):
    """An engine cannot be used or built."""


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
    """The requested backend cannot be used here."""


class MemoryBudgetError(AmodalError, MemoryError):
    """Nothing fits into the allowed memory, or memory ran out."""


class MissingDependencyError(AmodalError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class NonFiniteError(AmodalError, ArithmeticError):
    """The latents, or the pictures decoded from them, became NaN or infinite.

    Attributes:
        step: 0-based index of the first sampler step after which a latent was not finite; of the last step if the
            decoder overflowed.
        sigma: noise level of that step.
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
        """Pickles all arguments: the message alone would not recreate the error in another process."""
        return type(self), (self.step, self.sigma, str(self))


class OutputError(AmodalError, OSError):
    """Results could not be written; no partial output remains."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; its type's name if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
