"""amodal: a deployment runtime for amodal perception.

import amodal
with amodal.load("bundle") as model:
    seen = model.segment(modal, depth=depth)
    whole = model.complete(rgb, modal, seen.masks, seed=seen.noise)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_LAZY = {
    "load": "amodal.runtime.loading",
    "Model": "amodal.runtime.model",
    "Segmentation": "amodal.runtime.families.diffusion_vas.results",
    "Completion": "amodal.runtime.families.diffusion_vas.results",
    "Prediction": "amodal.runtime.families.sameo.results",
    "NoiseStream": "amodal.runtime.sampling.noise",
    "Gate": "amodal.runtime.clips.gate",
    "Churn": "amodal.runtime.sampling.schedule",
    "Bundle": "amodal.runtime.families",
    "AmodalError": "amodal.runtime.errors",
    "OcclusionOrder": "amodal.runtime.families.paco.order",
    "occlusion_order": "amodal.runtime.families.paco.order",
}
__all__ = [
    "AmodalError",
    "Bundle",
    "Churn",
    "Completion",
    "Gate",
    "Model",
    "NoiseStream",
    "OcclusionOrder",
    "Prediction",
    "Segmentation",
    "load",
    "occlusion_order",
]

if TYPE_CHECKING:
    from amodal.runtime.clips.gate import Gate
    from amodal.runtime.errors import AmodalError
    from amodal.runtime.families import Bundle
    from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
    from amodal.runtime.families.paco.order import OcclusionOrder, occlusion_order
    from amodal.runtime.families.sameo.results import Prediction
    from amodal.runtime.loading import load
    from amodal.runtime.model import Model
    from amodal.runtime.sampling.noise import NoiseStream
    from amodal.runtime.sampling.schedule import Churn


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `import amodal` costs milliseconds.
    if name not in _LAZY:
        raise AttributeError(f"module 'amodal' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
