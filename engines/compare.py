"""Measures of difference from a reference, shared by export, verification and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3}
"""Largest relative L2 difference between a graph and its torch module, by precision. In fp16 it covers the rounding of
the weights to half, through a whole U-Net, and that of the arithmetic."""


def relative_l2(candidate: Any, reference: Any) -> float:
    """Computes ||candidate - reference|| / ||reference|| in float64; infinite if the first is not finite."""
    a, b = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be compared")
    if not np.isfinite(a).all():
        return float("inf")
    norm = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / norm if norm else float(np.linalg.norm(a))


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Computes the IoU of two masks of one shape over all frames; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0
