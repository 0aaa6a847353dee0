"""ONNX Runtime on the CPU with amodal's optional kernels (`cpu`), and on an NVIDIA GPU (`cuda`)."""

from __future__ import annotations

from ..backend import Backend


def probe(name: str, device: str | None) -> str:
    """Describes the backend here; see `amodal.runtime.backends.registry.availability`."""
    if device in (None, "cpu"):
        from . import cpu

        return cpu.probe()
    from . import cuda

    return cuda.probe(device)


def create(name: str, *, device: str | None, threads: int | None, vram: int | None = None) -> Backend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    if (device or "").startswith("cuda"):
        from . import cuda

        return cuda.create(device=device, threads=threads, vram=vram)
    from . import cpu

    return cpu.create(device=device, threads=threads)
