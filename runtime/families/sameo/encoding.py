"""Encodes pictures, once for all prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...arrays.interop import Array
from ...errors import InputError
from ...execution.components import Components
from ...execution.session import Session, components_of
from ...pictures.images import Checks, Size
from .config import TASK, config_of
from .pictures import prepare_picture, read_picture, size_of

PICTURES_AT_ONCE = 4
"""Pictures that a GPU encodes in one call; a CPU takes one, which needs the least memory."""


@dataclass(frozen=True)
class Encoding:
    """A picture as the decoder needs it, for any number of `Model.predict`; on the model's device.

    Attributes:
        size: (h, w) of the picture, in whose pixels boxes and points are.
        arrays: outputs of the encoder by name, each of one picture.
        components: the networks that it belongs to.
    """

    size: Size
    arrays: Mapping[str, Array]
    components: Components

    @property
    def bytes(self) -> int:
        """Memory that it takes on the device."""
        return sum(int(array.nbytes) for array in self.arrays.values())


def pictures_at_once(on_gpu: bool) -> int:
    """Returns how many pictures the encoder takes in one call."""
    return PICTURES_AT_ONCE if on_gpu else 1


def encode_pictures(session: Session, images: Iterable[Any]) -> Iterator[Encoding]:
    """Encodes pictures of any sizes, a few in one call; yields them in order.

    Raises:
        InputError: a picture has another shape, dtype or range; those of earlier calls have been yielded then.
    """
    remaining, at_once = iter(images), pictures_at_once(session.backend.on_gpu)
    while batch := list(islice(remaining, at_once)):
        yield from _encode(session, batch)


def encoding_of(session: Session, image: Any) -> Encoding:
    """Returns a picture's encoding; an `Encoding` is checked and returned as it is.

    Raises:
        InputError: as `encode_pictures`; or it was encoded by another model.
    """
    if not isinstance(image, Encoding):
        return _encode(session, [image])[0]
    if image.components is not session.components:
        raise InputError(
            "the picture was encoded by another model; encode it with this one's `encode`, or give the picture.",
            field="image",
        )
    return image


def _encode(session: Session, images: list[Any]) -> list[Encoding]:
    key, size = components_of(session.bundle, TASK)["image_encoder"], config_of(session.manifest).size
    backend, xp = session.backend, session.backend.xp
    with backend.active():
        checks = Checks(xp)
        read = [read_picture(image, xp, checks) for image in images]
        checks.raise_pending(backend.to_host)
        pixels = xp.stack([prepare_picture(array, size, xp) for array in read])
        with session.components.use(key) as network:
            made = network({"pixels": pixels})
    return [
        Encoding(size_of(array), {name: every[i : i + 1] for name, every in made.items()}, session.components)
        for i, array in enumerate(read)
    ]
