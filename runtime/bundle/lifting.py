"""Converts manifests of schema 1, which mixed the fields of the only family with the generic ones, to schema 2."""

from __future__ import annotations

from typing import Any

_FAMILY = "diffusion-vas"
_CONFIG = (
    *("frames", "height", "width", "latent_channels", "vae_factor", "decode_chunk", "scaling_factor"),
    *("context_layout", "noise_dtype", "noise_augmentation", "motion_bucket", "propagate", "scheduler"),
    *("image_encoder", "depth"),
)
_FLOAT32 = ("vae_encoder", "unet_conditioner")  # exported in float32 whatever the bundle's precision
_NOT_BFLOAT16 = ("depth", "unet_conditioner")


def lift(document: dict[str, Any]) -> dict[str, Any]:
    """Converts a manifest of schema 1 to schema 2; raises KeyError, TypeError or AttributeError for other documents."""
    rest = {name: value for name, value in document.items() if name not in (*_CONFIG, "stages")}
    tasks = {name: {**stage, "components": dict(stage["components"])} for name, stage in document["stages"].items()}
    if document.get("depth") is not None and "segment" in tasks:
        tasks["segment"]["components"]["depth"] = "depth"
    return {
        **rest,
        "schema_version": 2,
        "family": document.get("family", _FAMILY),
        "config": {name: document[name] for name in _CONFIG if name in document},
        "tasks": tasks,
        "components": {key: _component(entry) for key, entry in document["components"].items()},
    }


def _component(entry: dict[str, Any]) -> dict[str, Any]:
    kind = entry["kind"]
    return {
        **entry,
        "files": [{**file, "role": _role(file["path"])} for file in entry["files"]],
        "repeated": kind == "unet",
        "least_precision": "fp32" if kind in _FLOAT32 else "fp16",
        "bfloat16": kind not in _NOT_BFLOAT16,
    }


def _role(path: str) -> str:
    return "fused" if path.endswith(".fused.onnx") else "graph" if path.endswith(".onnx") else "weights"
