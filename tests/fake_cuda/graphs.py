"""Graphs of components as they are exported, and the jobs that measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from amodal.export.checkpoints.checkpoint import random_checkpoint
from amodal.export.depth_anything.network import random_depth
from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export
from amodal.export.families.sameo.checkpoint import random_checkpoint as random_sameo
from amodal.export.families.sameo.plan import SameoSettings, plan_sameo
from amodal.export.plan import ComponentPlan

from .sparse import save_sparse

FRAMES = 8  # that a VAE takes at once
SIZES = {"rows": 2, "frames": FRAMES, "steps": 25, "pictures": 1, "boxes": 16}


def planned(kind: Literal["tiny", "diffusion-vas"], **settings: Any) -> dict[str, ComponentPlan]:
    """The components of stage `segment` and depth, by kind: of toys, or at the real size."""
    tiny = kind == "tiny"
    shapes: dict[str, Any] = {"size": (64, 128), "frames": 8} if tiny else {"size": (256, 512), "frames": 25}
    depth = random_depth("tiny" if tiny else "small")
    components = plan_export(
        {"segment": random_checkpoint(kind, "segment")}, depth, ExportSettings(**shapes, **settings)
    ).components
    return {c.kind: c for c in components}


def planned_sameo(kind: Literal["tiny", "ti"], **settings: Any) -> dict[str, ComponentPlan]:
    """The components of SAMEO, by kind: of a toy, or of EfficientSAM-Ti for 1024x1024."""
    return {c.kind: c for c in plan_sameo(random_sameo(kind), SameoSettings(**settings)).components}


def job_of(component: ComponentPlan, folder: Path, **more: Any) -> dict[str, Any]:
    """A job for `measure.py`, with the graph written but for its weights."""
    file = save_sparse(component.write(component.size), folder / f"{component.key}.onnx")
    facts = {"kind": component.kind, "precision": component.precision, "repeated": component.repeated}
    return {"graph": str(file), "sizes": SIZES, **facts, **more}


def launches(counts: dict[str, int], prefix: str = "") -> int:
    """Kernels, and the libraries' calls that launch some; with `recorded ` those of a CUDA graph."""
    return sum(n for name, n in counts.items() if name.startswith(f"{prefix}launch"))
