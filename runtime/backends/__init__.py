"""Backends, which execute components. None of their libraries is imported before a backend is asked for."""

from .backend import Availability, Backend, EngineNeeds, Executable
from .choosing import AUTO, create, preferred
from .registry import DEFAULT, availability, gpu_choices, names, on_gpu

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
