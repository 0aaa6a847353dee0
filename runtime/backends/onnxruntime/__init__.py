"""ONNX Runtime on the CPU with amodal's optional kernels (`cpu`), and on an NVIDIA GPU (`cuda`)."""

from __future__ import annotations

from ..backend import Availability, Backend


def availability(name: str = "onnxruntime", device: str | None = None) -> Availability:
    """Returns whether ONNX Runtime can be imported, or with `device="cuda"`, can use a GPU."""
    if device in (None, "cpu"):
        from . import cpu

        return cpu.availability()
    from . import cuda

    return cuda.availability(device)


def create(
    name: str = "onnxruntime", *, device: str | None = None, threads: int | None = None, vram: int | None = None
) -> Backend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    if (device or "").startswith("cuda"):
        from . import cuda

        return cuda.create(device=device, threads=threads, vram=vram)
    from . import cpu

    return cpu.create(device=device, threads=threads)
