"""The families of models, by name. A family's module is imported when a bundle needs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..bundle import reading
from ..bundle.manifest import MANIFEST_NAME
from ..errors import BundleCorruptError, BundleVersionError
from ..execution.family import Family
from ..paths import PathLike

_REGISTRY = {
    "diffusion-vas": "amodal.runtime.families.diffusion_vas.family",
    "sameo": "amodal.runtime.families.sameo.family",
}
"""Name in a manifest -> module whose `FAMILY` runs it."""


class Bundle(reading.Bundle):
    """A finished bundle of a family that this version runs.

    Args:
        path: the folder, or `default` for the small trained one inside the package.

    Attributes:
        family: the family that runs it.
        config: the manifest's `config` as the family reads it; `frames` and `size` are in every one.

    Raises:
        BundleNotFoundError: there is no finished bundle.
        BundleVersionError: a newer amodal wrote it, or its family is unknown here.
        BundleCorruptError: its manifest cannot be read, or a file is missing or has another size.
    """

    def __init__(self, path: PathLike) -> None:
        super().__init__(path)
        name = self.manifest.family
        if name not in _REGISTRY:
            raise BundleVersionError(
                f"the bundle is of the family {name}, this amodal runs {', '.join(_REGISTRY)}; update amodal "
                "(pip install -U amodal)."
            )
        self.family: Family = import_module(_REGISTRY[name]).FAMILY
        try:
            self.config: Any = self.family.config(self.manifest)
        except ValueError as error:
            file = self.path / MANIFEST_NAME
            raise BundleCorruptError(f"{file}: {reading.first_fault(error)}; export the bundle again.") from error
