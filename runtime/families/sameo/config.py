"""The `config` of a SAMEO bundle's manifest: the encoder's input and the shapes between the two networks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator
from typing_extensions import Self

from ...bundle.manifest import Manifest

NAME = "sameo"
TASK = "predict"
ROLES = ("image_encoder", "mask_decoder")
MASKS = 4
"""Masks per prompt: 0 of the token for a single answer, 1 to 3 of those for several."""


class Config(BaseModel):
    """The `config` of a SAMEO bundle's manifest.

    Attributes:
        frames: pictures in one run.
        height, width: the encoder's input; pictures of any size are resized to it as a whole.
        patch: side of the encoder's patches.
        embedding: channels of the image embedding.
        slots: points that a prompt holds; a box takes two.
        upscaling: side of a patch in pixels of the low-resolution masks.
        mean, std: of RGB in [0, 1]; the encoder's graph applies them.
        boxes_at_once: the most prompts in one call of the decoder.
        trained_on: what the networks were trained on, where that is narrow; in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frames: Literal[1] = 1
    height: PositiveInt
    width: PositiveInt
    patch: PositiveInt = 16
    embedding: PositiveInt
    slots: PositiveInt = 6
    upscaling: PositiveInt = 4
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    boxes_at_once: PositiveInt = 16
    trained_on: str | None = None

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"{self.height}x{self.width} does not consist of whole patches of {self.patch}")
        if self.slots < 2:
            raise ValueError(f"{self.slots} slot cannot hold a box, which takes two")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the encoder's input."""
        return self.height, self.width

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.height // self.patch, self.width // self.patch

    @property
    def low_size(self) -> tuple[int, int]:
        """(h, w) of the decoder's masks."""
        return self.grid[0] * self.upscaling, self.grid[1] * self.upscaling


def config_of(manifest: Manifest) -> Config:
    """Returns a manifest's `config`; raises `pydantic.ValidationError` if it is not that of SAMEO."""
    return Config.model_validate(manifest.config)


def check(manifest: Manifest) -> Config:
    """Validates a manifest's `config`, tasks and components; returns the `config`.

    Raises:
        ValueError: something is missing or out of range (pydantic's `ValidationError` is one).
    """
    config = config_of(manifest)
    for task, entry in manifest.tasks.items():
        if task != TASK:
            raise ValueError(f"task {task!r} is unknown; expected {TASK}")
        for role in ROLES:
            key = entry.components.get(role)
            if key is None or manifest.components[key].kind != role:
                raise ValueError(f"{task} has no component {role} ({key!r} is not one)")
    return config
