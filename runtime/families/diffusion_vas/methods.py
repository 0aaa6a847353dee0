"""The method of a `Model` that bundles with a depth network have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import as_input
from ...execution.session import Session
from ...pictures.depth import DepthChannels
from ...pictures.images import prepare_rgb
from ..requirements import require_family
from .config import NAME, config_of
from .running import find_depth


class DepthMethods:
    """The part of `amodal.runtime.model.Model` for bundles that compute depth (Diffusion-VAS)."""

    session: Session

    def depth(self, rgb: Any, channels: DepthChannels | None = None) -> NDArray[np.float32]:
        """Computes prepared depth float32 [T, H, W] in [-1, 1] from frames, as in `segment`.

        Args:
            channels: their order for the network, as `depth_channels` of `segment`.

        Raises:
            InputError: the bundle has no depth component, or the order is unknown.
        """
        require_family(self.session, "depth", NAME)
        backend = self.session.backend
        with backend.active():
            pictures = prepare_rgb(as_input(rgb, "rgb", backend.xp), config_of(self.session.manifest).size, backend.xp)
            return backend.to_host(find_depth(self.session, pictures, channels))
