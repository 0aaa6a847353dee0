"""Which GPUs an engine can be built for, by backend."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.errors import InputError

PORTABLE, THIS = "portable", "this"
BACKENDS: tuple[EngineBackend, ...] = ("tensorrt_rtx", "tensorrt")


@dataclass(frozen=True)
class Target:
    """What an engine is built for.

    Attributes:
        name: as it stands in keys and folder names.
        capabilities: compute capabilities (`sm86`), in ascending order; empty for `this` and for TensorRT's
            `portable`, which have none to name.
    """

    name: str
    capabilities: tuple[str, ...] = ()

    @property
    def needs_gpu(self) -> bool:
        """Whether building asks the driver what is here."""
        return not self.capabilities


def parse_target(text: str, backend: EngineBackend, known: tuple[str, ...]) -> Target:
    """A target from its name.

    Args:
        text: `portable`, `this`, or compute capabilities like `sm86,sm89`.
        known: those that the installed library builds for ahead of time; empty where it builds only for the GPU here.

    Raises:
        InputError: a capability that the library does not know.
    """
    if text == THIS:
        return Target(THIS)
    if text == PORTABLE:
        return Target(PORTABLE, known)
    names = [name.strip().lower().replace("_", "") for name in text.split(",") if name.strip()]
    names = [f"sm{name}" if name.isdigit() else name for name in names]
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
    chosen = tuple(sorted(set(names), key=_number))
    return Target("+".join(chosen), chosen)


def _number(capability: str) -> int:
    found = re.search(r"\d+", capability)
    return int(found[0]) if found else 0
