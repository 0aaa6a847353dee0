"""Backends, which run components. Their libraries are imported only when a backend is requested."""

from .backend import Availability, Backend, EngineNeeds, Executable
from .registry import AUTO, DEFAULT, availability, create, gpu_choices, names, on_gpu, preferred

__all__ = [
    "AUTO",
    "DEFAULT",
    "Availability",
    "Backend",
    "EngineNeeds",
    "Executable",
    "availability",
    "create",
    "gpu_choices",
    "names",
    "on_gpu",
    "preferred",
]
