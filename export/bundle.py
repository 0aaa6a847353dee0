"""Checkpoints to a bundle: writes every graph once, checks it against torch, and puts the folder in place whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from amodal import __version__
from amodal.engines.compare import TOLERANCES
from amodal.runtime.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    ComponentEntry,
    DepthEntry,
    ImageEncoderEntry,
    Manifest,
    SchedulerEntry,
    StageEntry,
    StageName,
)
from amodal.runtime.errors import ExportError, InputError
from amodal.runtime.files.atomic import check_output, staged_folder
from amodal.runtime.files.frames import PathLike
from amodal.runtime.files.results import write_json
from amodal.runtime.pictures.depth import depth_input_size

from .check import check_structure, measure
from .checkpoints.checkpoint import StageCheckpoint
from .depth_anything.network import DepthNetwork
from .families.diffusion_vas.plan import (
    ExportSettings,
    Job,
    depth_job,
    jobs_of_stage,
    multiple_of,
    require_divisible,
    vae_factor,
)
from .fusing import file_entry, write_fused

NOISE_AUGMENTATION = 0.02  # the authors' demo
MOTION_BUCKET = 127.0


class Progress(Protocol):
    """Hears how an export goes on."""

    def start(self, component: str) -> None:
        """A component's weights are being read."""

    def phase(self, what: str, total_bytes: int | None = None) -> None:
        """What is done with it: `write` (so many bytes), `compare`, `hash`, or `shared` with an earlier one."""

    def advance(self, count: int) -> None:
        """So many more bytes of it are on disk."""


class Silent:
    """A `Progress` that says nothing."""

    def start(self, component: str) -> None:
        """See `Progress`."""

    def phase(self, what: str, total_bytes: int | None = None) -> None:
        """See `Progress`."""

    def advance(self, count: int) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class Exported:
    """One row of the table at the end of an export.

    Attributes:
        check_size: frame size at which `entry.difference` was measured.
        seconds: for writing, comparing and hashing.
    """

    key: str
    entry: ComponentEntry
    check_size: tuple[int, int]
    seconds: float


def export_bundle(
    out: PathLike,
    stages: Mapping[StageName, StageCheckpoint],
    depth: DepthNetwork | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
    inputs: Iterable[PathLike] = (),
    progress: Progress | None = None,
) -> list[Exported]:
    """Writes a bundle.

    Args:
        out: the folder to make.
        stages: the checkpoint of each stage.
        depth: a depth network, or None for a bundle that takes depth from outside.
        overwrite: replace a bundle there.
        inputs: paths that are being read, and must survive.

    Returns:
        One row per component, in order of writing.

    Raises:
        InputError: a size that does not fit, or stages that do not fit each other.
        CheckpointError: weights that are missing, misshapen or out of range.
        ExportError: a graph differs from its module by more than the tolerance.
        OutputError: the disk is full or read-only; nothing is left behind.
    """
    settings, progress = settings or ExportSettings(), progress or Silent()
    check_output(out, overwrite, MANIFEST_NAME, inputs)
    first = _first(stages)
    for checkpoint in stages.values():
        require_divisible(settings.size, multiple_of(checkpoint))
    input_size = depth_input_size(*settings.size)

    with staged_folder(out, overwrite, MANIFEST_NAME, inputs) as folder:
        graphs = folder / "graphs"
        graphs.mkdir()
        writer = _Writer(graphs, settings, progress, sharing=len(stages) > 1)
        entries: dict[StageName, StageEntry] = {}
        for stage, checkpoint in stages.items():
            keys = {job.kind: writer.add(job, settings.size) for job in jobs_of_stage(stage, checkpoint, settings)}
            entries[stage] = StageEntry(components=keys, source=checkpoint.source, licence=checkpoint.licence)
        if depth is not None:
            writer.add(depth_job(depth, input_size, settings), input_size)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            family="diffusion-vas",
            amodal_version=__version__,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            frames=settings.frames,
            height=settings.size[0],
            width=settings.size[1],
            latent_channels=first.vae.config["latent_channels"],
            vae_factor=vae_factor(first.vae),
            decode_chunk=settings.decode_chunk,
            scaling_factor=first.vae.config["scaling_factor"],
            context_layout=settings.context,
            noise_dtype="float16" if settings.half else "float32",
            noise_augmentation=NOISE_AUGMENTATION,
            motion_bucket=MOTION_BUCKET,
            propagate=settings.propagate,
            scheduler=SchedulerEntry(sigma_min=first.scheduler["sigma_min"], sigma_max=first.scheduler["sigma_max"]),
            image_encoder=ImageEncoderEntry(
                side=first.image_encoder.config["image_size"],
                mean=first.image_mean,
                std=first.image_std,
                width=first.image_encoder.config["projection_dim"],
            ),
            depth=None
            if depth is None
            else DepthEntry(height=input_size[0], width=input_size[1], model=f"Depth Anything V2 {depth.info.variant}"),
            stages=entries,
            components={row.key: row.entry for row in writer.rows},
        )
        write_json(folder / MANIFEST_NAME, manifest.as_json())
    return writer.rows


def _first(stages: Mapping[StageName, StageCheckpoint]) -> StageCheckpoint:
    """Any stage, after making sure that what the manifest says once is the same in all."""
    if not stages:
        raise InputError("nothing to export: give --segment CHECKPOINT, --complete CHECKPOINT, or both.")
    (name, first), *rest = stages.items()
    for other, checkpoint in rest:
        for what, mine, theirs in (
            ("noise schedule", first.scheduler, checkpoint.scheduler),
            ("VAE factor", vae_factor(first.vae), vae_factor(checkpoint.vae)),
            (
                "VAE scaling factor",
                first.vae.config["scaling_factor"],
                checkpoint.vae.config["scaling_factor"],
            ),
            (
                "latent channels",
                first.vae.config["latent_channels"],
                checkpoint.vae.config["latent_channels"],
            ),
            (
                "image encoder's input",
                (first.image_encoder.config["image_size"], first.image_mean, first.image_std),
                (checkpoint.image_encoder.config["image_size"], checkpoint.image_mean, checkpoint.image_std),
            ),
            (
                "image encoder's width",
                first.image_encoder.config["projection_dim"],
                checkpoint.image_encoder.config["projection_dim"],
            ),
        ):
            if mine != theirs:
                raise InputError(
                    f"the stages do not fit together: the {what} is {mine} in {name} ({first.source}) and {theirs} in "
                    f"{other} ({checkpoint.source}); export them into two bundles."
                )
    return first


class _Writer:
    """Writes graphs into a folder; where there is `sharing`, those of equal networks once."""

    def __init__(self, folder: Path, settings: ExportSettings, progress: Progress, sharing: bool) -> None:
        self.folder, self.settings, self.progress, self.sharing = folder, settings, progress, sharing
        self.rows: list[Exported] = []
        self._shared: dict[tuple[str, str], str] = {}

    def add(self, job: Job, size: tuple[int, int]) -> str:
        """Writes one graph, unless the same one is there; returns its key in the manifest."""
        start, shareable = time.perf_counter(), job.kind in _SHAREABLE
        key = job.kind if shareable and job.kind not in {r.key for r in self.rows} else job.key
        self.progress.start(key)
        identity = (job.kind, job.network.fingerprint if shareable and self.sharing else job.key)
        if identity in self._shared:
            self.progress.phase("shared")
            return self._shared[identity]
        file = self.folder / f"{key}.onnx"
        graph = job.write(size)
        self.progress.phase("write", graph.bytes)
        places = graph.save(file, self.progress.advance)
        check_structure(file)
        fused = self.settings.fused and job.precision == "fp32"
        difference = None
        if self.settings.check != "none":
            self.progress.phase("compare")
            difference = measure(job, file, places, self.settings.context == "sequence", size, fused=fused)
            limit = TOLERANCES[self.settings.stored or self.settings.precision]
            if not difference <= limit:
                raise ExportError(
                    f"the graph of {key}, or its fused twin, differs from its torch module by {difference:.2g} "
                    f"(relative L2), more than {limit:.0e}; try --precision fp32, and please report it."
                )
        self.progress.phase("hash")
        files = [f for f in (file, file.with_name(file.name + ".data")) if f.exists()]
        if fused and (twin := write_fused(file)) is not None:
            files.append(twin)
        entry = ComponentEntry(
            kind=job.kind,
            files=tuple(map(file_entry, files)),
            precision=job.precision,
            stored=self.settings.stored or self.settings.precision,
            variant=self.settings.graph_variant.as_dict(),
            parameters=graph.parameters,
            inputs=tuple(graph.inputs),
            outputs=tuple(graph.outputs),
            difference=difference,
            source=job.network.source,
        )
        self.rows.append(Exported(key, entry, job.check_size, time.perf_counter() - start))
        self._shared[identity] = key
        return key


_SHAREABLE = {"image_encoder", "vae_encoder", "vae_decoder"}
