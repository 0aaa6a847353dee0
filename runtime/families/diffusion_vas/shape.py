"""The settings of a run that decide its calls and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from typing_extensions import Self

from ...bundle.manifest import Manifest
from ...clips.windows import longest_block
from ...errors import InputError
from ...execution.run import Run
from .config import config_of
from .settings import CfgRows, Settings

PIECE = 16
"""Frames of a long clip that are prepared at once, and whose depth is computed at once."""


@dataclass(frozen=True)
class RunShape(Run):
    """The settings of a run that decide its calls and its memory; see `Settings` for those not listed.

    Attributes:
        tasks: the stages that run; empty for all of the bundle's.
        depth: whether `segment` computes depth, if the bundle has the component for it.
        guided: whether there is an unconditional row.
        samples: number of seeds of `segment`.
        cfg_rows: as in `Settings`; `auto` for either way.
        size: (H, W) of the frames; None for the bundle's. Any other stands for a bundle yet to be exported, and is
            estimated.
        given: (h, w) of the caller's pictures; None for `size`.
        on_gpu: whether a GPU runs it, with more frames at once.
        objects: objects that are denoised together.
        block: frames of a block of a long clip; 0 for a clip of the bundle's frames.
    """

    depth: bool = True
    guided: bool = True
    steps: int = 25
    samples: int = 1
    decode_chunk: int | None = None
    cfg_rows: CfgRows = "auto"
    size: tuple[int, int] | None = None
    given: tuple[int, int] | None = None
    on_gpu: bool = True
    objects: int = 1
    block: int = 0

    @property
    def windowed(self) -> bool:
        """Whether blocks of frames are run in windows, as of long clips and several objects."""
        return self.objects > 1 or self.block > 0

    @property
    def rows(self) -> int:
        """Number of CFG rows."""
        return 2 if self.guided else 1

    @property
    def variant(self) -> str:
        """The way to call CFG rows, as messages name it."""
        return f"{self.cfg_rows} CFG rows"

    @property
    def pictures(self) -> str:
        """The size of the frames, as messages name it; empty for the bundle's."""
        return "" if self.size is None else f"frames of {self.size[0]}x{self.size[1]}"

    def variants(self) -> tuple[Self, ...]:
        """Returns the run with CFG rows in one call, which reads the weights once for both, and in separate calls."""
        if self.cfg_rows != "auto":
            return (self,)
        ways: tuple[CfgRows, ...] = ("batched", "separate") if self.guided else ("batched",)
        return tuple(replace(self, cfg_rows=way) for way in ways)

    def open_variant(self) -> Self:
        """Returns this run with the way to call CFG rows left open."""
        return replace(self, cfg_rows="auto")

    def smaller(self, manifest: Manifest) -> Iterator[Iterator[tuple[str, Self]]]:
        """Yields one stage, fewer samples, fewer frames decoded at once, smaller frames of nearly the same shape."""
        assert self.decode_chunk is not None
        yield from super().smaller(manifest)
        yield ((f"`samples={n}`", replace(self, samples=n)) for n in range(self.samples - 1, 0, -1))
        yield ((f"`decode_chunk={n}`", replace(self, decode_chunk=n)) for n in range(self.decode_chunk - 1, 0, -1))
        yield ((f"`objects_at_once={n}`", replace(self, objects=n)) for n in range(self.objects - 1, 0, -1))
        config = config_of(manifest)
        blocks = range(self.block - config.frames, config.frames, -config.frames)
        yield ((f"`block_frames={n}`", replace(self, block=n)) for n in blocks)
        height, width = self.size or config.size
        multiple = config.multiple
        sizes = (
            (rows * multiple, max(round(rows * width / height), 1) * multiple)
            for rows in range((height - 1) // multiple, 0, -1)
        )
        yield ((f"a bundle exported for frames of {h}x{w}", replace(self, size=(h, w))) for h, w in sizes)

    def longer(self, manifest: Manifest) -> Iterator[tuple[str, Self]]:
        """Yields runs of a long clip's blocks with 1, 2, 4 and 8 objects."""
        frames = config_of(manifest).frames
        for objects in (1, 2, 4, 8):
            name = f"{objects} object{'s' if objects > 1 else ''}"
            yield name, replace(self, objects=objects, block=longest_block(frames, "shifted"))

    def beside(self, loaded: Self, resident: bool) -> Self:
        """Returns this run on a model that was loaded for another; see `Run.beside`."""
        if self.depth and not loaded.depth:
            raise InputError("this model was loaded for given depth; pass it, or load it for runs that compute depth.")
        together = super().beside(loaded, resident)
        if self.cfg_rows == "auto" and loaded.cfg_rows == "separate":
            together = replace(together, cfg_rows="separate")
        return replace(together, depth=self.depth or (resident and loaded.depth))

    def as_json(self) -> dict[str, Any]:
        """Returns the run as plain values."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"cfg_rows": self.cfg_rows, "shape": {"stages": plain.pop("tasks"), **plain}}


def run_shape(tasks: tuple[str, ...], settings: Settings, **more: Any) -> RunShape:
    """Returns the run of some stages with these settings; `more` are further fields of `RunShape`."""
    same = {name: getattr(settings, name) for name in ("guided", "steps", "decode_chunk", "cfg_rows")}
    return RunShape(tasks, **same, **more)
