"""Frame sizes that fit a checkpoint, and the size at which its graphs are compared with torch."""

from __future__ import annotations

import itertools
import math
from typing import Literal

from amodal.runtime.errors import InputError

from ...checkpoints.checkpoint import Network, StageCheckpoint
from ...plan import Size
from .unet_structure import UNetStructure

Check = Literal["full", "small", "none"]

SMALL = 64 * 128  # pixels up to which graphs are compared with torch at their own size
# Norms over groups of one or two values amplify rounding without bound: toys at sizes like 64x64 then differ even
# between two runs of torch. From four values on, differences were as usual.
_GROUP = 4


def vae_factor(vae: Network) -> int:
    """Returns the pixels per latent, along each side."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def size_multiple(checkpoint: StageCheckpoint) -> int:
    """Returns the number that divides height and width: the VAE's factor times the U-Net's."""
    return vae_factor(checkpoint.vae) * UNetStructure.of(checkpoint.unet.config).downscale


def require_divisible(size: Size, multiple: int) -> None:
    """Raises InputError, with the nearest sizes that fit, unless a size is divisible by `multiple`."""
    if all(n > 0 and n % multiple == 0 for n in size):
        return
    nearest = ["x".join(str(max(f(n / multiple), 1) * multiple) for n in size) for f in (math.floor, math.ceil)]
    are = f"nearest are {nearest[0]} and {nearest[1]}" if nearest[0] != nearest[1] else f"nearest is {nearest[0]}"
    raise InputError(
        f"size {size[0]}x{size[1]} does not fit: this checkpoint's VAE and U-Net need multiples of {multiple}; "
        f"the {are}.",
        field="size",
    )


def check_size_of(size: Size, checkpoint: StageCheckpoint, check: Check) -> Size:
    """Returns the size at which graphs are compared with torch: their own, or a small one that is not square.

    A small one, unless `check` is `full`, if their own is large, or so small that only rounding would be compared.
    """
    multiple, factor = size_multiple(checkpoint), vae_factor(checkpoint.vae)
    structure = UNetStructure.of(checkpoint.unet.config)

    def well_conditioned(size: Size) -> bool:
        return structure.group_values((size[0] // factor, size[1] // factor)) >= _GROUP

    small = size[0] * size[1] <= max(SMALL, 2 * multiple * multiple)
    if check == "full" or (small and well_conditioned(size)):
        return size
    return next(at for n in itertools.count(1) if well_conditioned(at := (n * multiple, 2 * n * multiple)))
