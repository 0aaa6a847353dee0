"""Which of a `Model`'s methods a bundle's family has, in a sentence where it has not."""

from __future__ import annotations

from ..errors import InputError
from ..execution.session import Session

_DIFFUSION_VAS, _SAMEO = "diffusion-vas", "sameo"
_NAMES = {_DIFFUSION_VAS: "Diffusion-VAS", _SAMEO: "SAMEO"}
_ADVICE = {
    _DIFFUSION_VAS: "which finds objects in clips: use `segment` with their visible masks",
    _SAMEO: "which finds masks in pictures: use `predict` with boxes, or `segment` with visible masks",
}


def require_family(session: Session, method: str, family: str) -> None:
    """Raises `InputError` unless the bundle is of the family that has a method.

    Args:
        method: of `Model`.
        family: name in the manifest.
    """
    found = session.manifest.family
    if found != family:
        about = f"{_NAMES.get(found, found)}, {_ADVICE.get(found, 'whose tasks `run` runs')}"
        raise InputError(f"`{method}` is for bundles of {_NAMES[family]}, and {session.bundle.path} is of {about}.")


def works_by_picture(session: Session) -> bool:
    """Returns whether the bundle's family finds objects in each picture by itself."""
    return session.manifest.family == _SAMEO
