"""Families of models, by name; each has its own inputs, calls and results, and is imported when a bundle needs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..bundle import reading
from ..bundle.manifest import MANIFEST_NAME, Manifest
from ..errors import BundleCorruptError, BundleVersionError
from ..execution.family import Family
from ..paths import PathLike

_REGISTRY = {
    "diffusion-vas": "amodal.runtime.families.diffusion_vas.family",
}
"""Name in a manifest -> the module whose `FAMILY` it is."""


def names() -> list[str]:
    """Names of the families that this version runs."""
    return list(_REGISTRY)


def register(name: str, module: str) -> None:
    """Adds a family, for bundles whose manifest names it.

    Args:
        module: dotted name of the module whose `FAMILY` it is; imported when the first bundle needs it.
    """
    _REGISTRY[name] = module


def family_of(manifest: Manifest) -> Family:
    """The family that a manifest names.

    Raises:
        BundleVersionError: this version does not know it.
    """
    module = _REGISTRY.get(manifest.family)
    if module is None:
        raise BundleVersionError(
            f"the bundle is of the family {manifest.family}, this amodal runs {', '.join(_REGISTRY)}; update amodal "
            "(pip install -U amodal)."
        )
    family: Family = import_module(module).FAMILY
    return family


class Bundle(reading.Bundle):
    """A finished bundle of a family that this version runs.

    Args:
        path: the folder, or `default` for the small trained one inside the package.

    Attributes:
        family: what runs it.
        config: the family's own reading of the manifest's `config`; `frames` and `size` are in every one.

    Raises:
        BundleNotFoundError: there is no finished bundle.
        BundleVersionError: a newer amodal wrote it, or its family is unknown here.
        BundleCorruptError: its manifest cannot be read, or a file is missing or has another size.
    """

    def __init__(self, path: PathLike) -> None:
        super().__init__(path)
        self.family = family_of(self.manifest)
        try:
            self.config: Any = self.family.config(self.manifest)
        except ValueError as error:
            file = self.path / MANIFEST_NAME
            raise BundleCorruptError(f"{file}: {reading.first_fault(error)}; export the bundle again.") from error
