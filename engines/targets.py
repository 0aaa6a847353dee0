"""Which GPUs an engine can be built for, by backend."""

from __future__ import annotations

from dataclasses import dataclass

from amodal.runtime.builds.finding import capability_name
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.errors import InputError

PORTABLE, THIS = "portable", "this"
BACKENDS: tuple[EngineBackend, ...] = ("tensorrt_rtx", "tensorrt")


@dataclass(frozen=True)
class Target:
    """What an engine is built for.

    Attributes:
        name: as in keys and folder names.
        capabilities: compute capabilities (`sm86`), in ascending order; empty for `this` and for TensorRT's
            `portable`, which name none. Building then needs the GPU.
    """

    name: str
    capabilities: tuple[str, ...] = ()


def parse_target(text: str, backend: EngineBackend, known: tuple[str, ...]) -> Target:
    """Parses `portable`, `this`, or compute capabilities like `sm86,sm89`.

    Args:
        known: capabilities that the installed library builds for ahead of time, in ascending order; empty where it
            builds only for the GPU here.

    Raises:
        InputError: the library does not know a capability.
    """
    if text == THIS:
        return Target(THIS)
    if text == PORTABLE:
        return Target(PORTABLE, known)
    names = [capability_name(name) for name in text.split(",") if name.strip()]
    if not known:
        raise InputError(
            f'`target="{text}"`: {backend} builds for the GPU of the machine it runs on; expected {THIS} or {PORTABLE} '
            '(Ampere and newer), or `backend="tensorrt_rtx"`, which builds for others.',
            field="target",
        )
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InputError(
            f'`target="{text}"`: {", ".join(wrong) or "nothing"} is no target of this {backend}; expected {PORTABLE}, '
            f"{THIS}, or one or more of {', '.join(known)}.",
            field="target",
        )
    chosen = tuple(name for name in known if name in names)
    return Target("+".join(chosen), chosen)
