"""What of a run of Diffusion-VAS decides its calls and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from typing_extensions import Self

from ...bundle.manifest import Manifest
from ...errors import InputError
from ...execution.run import Run
from .config import config_of
from .settings import CfgRows, Settings


@dataclass(frozen=True)
class RunShape(Run):
    """What of a run decides its calls and its memory.

    Attributes:
        tasks: the stages that run; empty for all of the bundle's.
        depth: whether `segment` computes depth, if the bundle has the component for it.
        guided: whether there is an unconditional row.
        steps: sampler steps.
        samples: seeds that `segment` draws.
        decode_chunk: frames decoded at once; None for the bundle's.
        cfg_rows: both CFG rows in one call, or one after the other; `auto` for either.
        size: (H, W) of the frames; None for the bundle's. Any other is an estimate, of a bundle yet to be exported.
        given: (h, w) of the pictures that are handed over; None for that size.
        on_gpu: whether a GPU runs it: more frames at once.
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

    @property
    def rows(self) -> int:
        """CFG rows of the run, in however many calls."""
        return 2 if self.guided else 1

    @property
    def variant(self) -> str:
        """How its CFG rows are called."""
        return f"{self.cfg_rows} CFG rows"

    @property
    def pictures(self) -> str:
        """What pictures it is of, for people."""
        return "" if self.size is None else f"frames of {self.size[0]}x{self.size[1]}"

    def variants(self) -> tuple[Self, ...]:
        """Two CFG rows in one call, which reads the weights once for both, and one after the other."""
        batched, separate = replace(self, cfg_rows="batched"), replace(self, cfg_rows="separate")
        if self.cfg_rows != "auto":
            return (self,)
        return (batched, separate) if self.guided else (batched,)

    def open_variant(self) -> Self:
        """This run with either way of calling CFG rows."""
        return replace(self, cfg_rows="auto")

    def smaller(self, manifest: Manifest) -> Iterator[Iterator[tuple[str, Self]]]:
        """One stage, fewer samples, fewer frames decoded at once, smaller frames of nearly the same form."""
        assert self.decode_chunk is not None
        yield from super().smaller(manifest)
        yield ((f"`samples={n}`", replace(self, samples=n)) for n in range(self.samples - 1, 0, -1))
        yield ((f"`decode_chunk={n}`", replace(self, decode_chunk=n)) for n in range(self.decode_chunk - 1, 0, -1))
        config = config_of(manifest)
        height, width = self.size or config.size
        multiple = config.multiple
        sizes = (
            (rows * multiple, max(round(rows * width / height), 1) * multiple)
            for rows in range((height - 1) // multiple, 0, -1)
        )
        yield ((f"a bundle exported for frames of {h}x{w}", replace(self, size=(h, w))) for h, w in sizes)

    def beside(self, loaded: Self, resident: bool) -> Self:
        """This run on a model that was loaded for another; see `Run.beside`."""
        if self.depth and not loaded.depth:
            raise InputError("this model was loaded to be given depth; pass it, or load it for runs that compute it.")
        together = super().beside(loaded, resident)
        if self.cfg_rows == "auto" and loaded.cfg_rows == "separate":
            together = replace(together, cfg_rows="separate")
        return replace(together, depth=self.depth or (resident and loaded.depth))

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"cfg_rows": self.cfg_rows, "shape": {"stages": plain.pop("tasks"), **plain}}


def run_shape(tasks: tuple[str, ...], settings: Settings, **more: Any) -> RunShape:
    """The run of some stages with these settings; `more` are further fields of `RunShape`."""
    return RunShape(
        tasks,
        guided=settings.guided,
        steps=settings.steps,
        decode_chunk=settings.decode_chunk,
        cfg_rows=settings.cfg_rows,
        **more,
    )
