"""Access to a GPU through NVML, the driver's library."""

from __future__ import annotations

from typing import Any


def open_gpu(name: str = "0") -> tuple[Any, Any] | None:
    """Returns NVML and its handle of a GPU, given by index or UUID; None without the library, a driver or that GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle_of = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        return pynvml, handle_of(int(name) if name.isdigit() else name)
    except Exception:  # noqa: BLE001 (the library's own errors cannot be named without it)
        return None
