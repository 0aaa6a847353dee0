"""Writes the trained SAMEO network as a checkpoint that `amodal export --family sameo` reads, and as a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ...bundle import Exported, export_bundle
from ...families.sameo.checkpoint import read_sameo
from ...families.sameo.plan import SameoSettings, plan_sameo
from .recipe import MEAN, NETWORK, STD, Recipe
from .training import trained_network

LICENCE = "apache-2.0"
TRAINED_ON = "drawn scenes of shapes that pass behind one another"


def write_checkpoint(folder: Path, recipe: Recipe) -> Path:
    """Writes the averaged weights of a training in `folder`, in half precision; returns the .pt.

    What the shapes of tensors do not show is in a .json beside it.
    """
    state = {name: value.half() for name, value in trained_network(folder, recipe).state_dict().items()}
    facts = {
        "img_size": [NETWORK.height, NETWORK.width],
        "position_grid": list(NETWORK.pretrained_grid),
        "heads": NETWORK.heads,
        "decoder_heads": NETWORK.decoder_heads,
        "points": NETWORK.slots,
        "mean": MEAN,
        "std": STD,
        "trained_on": TRAINED_ON,
        "licence": LICENCE,
    }
    file = folder / "checkpoint.pt"
    torch.save({"model": state}, file)
    file.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return file


def write_bundle(folder: Path, out: Path, recipe: Recipe, *, overwrite: bool = False) -> list[Exported]:
    """Exports the checkpoint for CPUs: weights in half precision, arithmetic in float32."""
    # The source is a folder on one machine; the manifest names the recipe.
    checkpoint = replace(read_sameo(write_checkpoint(folder, recipe)), source="amodal.export.default_models.sameo")
    plan = plan_sameo(checkpoint, SameoSettings(precision="fp32", stored="fp16", check="full"))
    return export_bundle(out, plan, overwrite=overwrite)
