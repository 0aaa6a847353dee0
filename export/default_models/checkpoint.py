"""Writes the trained networks as checkpoints that `amodal export` reads, and as a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers

from amodal.runtime.families.diffusion_vas.config import ContextLayout, StageName

from ..bundle import Exported, export_bundle
from ..checkpoints.checkpoint import StageCheckpoint, read_checkpoint
from ..families.diffusion_vas.plan import ExportSettings, plan_export
from .domain import measure_domain
from .loop import load_average
from .recipe import CLIP_MEAN, CLIP_STD, SIGMA_RANGE, STAGES, Recipe, make_image_encoder, make_unet
from .vae import trained_vae

LICENCE = "apache-2.0"

# What it lacks has CLIP's values.
_FEATURE_EXTRACTOR = {"image_processor_type": "CLIPImageProcessor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
_INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}


def write_checkpoints(folder: Path, recipe: Recipe) -> dict[StageName, Path]:
    """Writes the averaged weights, in half precision, as diffusers pipelines; returns each stage's folder."""
    scheduler: Any = diffusers.EulerDiscreteScheduler
    places: dict[StageName, Path] = {}
    for stage in STAGES:
        place = places[stage] = folder / "checkpoints" / stage
        vae, unet = trained_vae(folder, stage, recipe), make_unet(recipe.seed, stage)
        load_average(unet, folder / f"{stage}.pt")
        if (decoder := folder / f"decoder_{stage}.pt").exists():
            load_average(vae.decoder, decoder)
        networks = {"vae": vae, "unet": unet, "image_encoder": make_image_encoder(recipe.seed)}
        for name, network in networks.items():
            network.eval().half().save_pretrained(place / name)
        scheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            sigma_min=SIGMA_RANGE[0],
            sigma_max=SIGMA_RANGE[1],
            timestep_spacing="leading",
            timestep_type="continuous",
            use_karras_sigmas=True,
            steps_offset=1,
        ).save_pretrained(place / "scheduler")
        _write(place / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
        _write(place / "model_index.json", _INDEX)
        (place / "README.md").write_text(f"---\nlicense: {LICENCE}\n---\n", encoding="utf-8")
    return places


def write_bundle(
    folder: Path, out: Path, recipe: Recipe, context: ContextLayout = "reference", *, overwrite: bool = False
) -> list[Exported]:
    """Exports the checkpoints for CPUs: weights in half precision, arithmetic in float32."""
    places = write_checkpoints(folder, recipe)
    settings = ExportSettings(
        *(recipe.size, recipe.frames, "fp32", "fp16", context, recipe.frames),
        propagate=True,
        domain=measure_domain(recipe),
    )
    checkpoints = {stage: _named(read_checkpoint(places[stage]), stage) for stage in STAGES}
    return export_bundle(out, plan_export(checkpoints, settings=settings), overwrite=overwrite)


def _named(checkpoint: StageCheckpoint, stage: StageName) -> StageCheckpoint:
    """Replaces the checkpoint's source, a folder on one machine, by the recipe, for the manifest."""
    source = f"amodal.export.default_models/{stage}"
    networks = {
        kind: replace(getattr(checkpoint, kind), source=f"{source}/{kind}") for kind in ("unet", "vae", "image_encoder")
    }
    return replace(checkpoint, source=source, **networks)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
