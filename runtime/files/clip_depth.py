"""Depth of a clip of any length as relative depth, a part at a time, each frame the same in whatever part it is read.

What the numbers mean is judged from all maps of a clip of up to 48, else from up to 48 maps spread over it (fewer if
they are large, at least 16): whether they look like distances, and the largest number, by which inverse depth is turned
over. Maps without a measurement get those of the nearest map that has one, which is looked for over the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..pictures.depth_kind import DepthKind, orient_depth, orient_map
from .depth import DepthSource
from .masks import near_ratio
from .pictures import Size, describe_size
from .recent import Recent

_SAMPLE, _FEWEST, _BYTES = 48, 16, 128 * 2**20


class ClipDepth:
    """The relative depth of the chosen frames.

    Args:
        source: the maps.
        maps: the number of each frame's map, rising.
        kind: what the numbers mean, see `orient_depth`.
        size: (h, w) of the frames.

    Attributes:
        notes: warnings; reading adds some.

    Raises:
        InputError: as `DepthSource.relative`, of the maps from which it is judged.
    """

    def __init__(self, source: DepthSource, maps: Sequence[int], kind: DepthKind | None, size: Size) -> None:
        self._source, self._maps, self._kind = source, maps, kind
        with argument("depth"):
            first = source.read(maps[:1])
            step = -(-len(maps) // min(_SAMPLE, max(_FEWEST, _BYTES // first.nbytes)))
            sample = source.read(maps[::step])
            self.size: Size = (int(sample.shape[1]), int(sample.shape[2]))
            self._top = float(np.max(sample, initial=-np.inf, where=np.isfinite(sample)))
            _, self.notes = orient_depth(sample, kind, source.looks())
        self.notes += _check_shape(self.size, size)
        self._recent = Recent(self._read)
        self._gaps: dict[int, int] = {}  # frames without a measurement, and the frame that stands in

    def again(self) -> ClipDepth:
        """Returns another reader of the same depth, for another place in it."""
        other = object.__new__(ClipDepth)
        other.__dict__.update(self.__dict__, _source=self._source.again())
        other._recent = Recent(other._read)
        return other

    @argument("depth")
    def get(self, numbers: range) -> NDArray[np.float32]:
        """Returns relative depth float32 [n, h, w] of frames.

        Raises:
            InputError: a damaged map, one of another size, or numbers that are not of the kind.
        """
        result: NDArray[np.float32] = self._recent.get(numbers)
        return result

    def _read(self, numbers: list[int]) -> NDArray[np.float32]:
        maps = self._oriented(numbers)
        for place, number in enumerate(numbers):
            if maps[place] is None:
                maps[place] = self._oriented([self._stand_in(number)])[0]
        return np.stack([one for one in maps if one is not None])

    def _oriented(self, numbers: list[int]) -> list[NDArray[np.float32] | None]:
        stored = self._source.read([self._maps[number] for number in numbers])
        if stored.shape[1:] != self.size:
            raise InputError(
                f"{self._source.path} holds depth of {describe_size(stored.shape[1:])} from frame {numbers[0]} on "
                f"after {describe_size(self.size)}; expected one size for the whole clip."
            )
        looks = self._source.looks()
        return [orient_map(one, self._kind, looks, self._top) for one in stored]

    def _stand_in(self, number: int) -> int:
        """Returns the nearest frame with a measurement, of two as near the earlier one."""
        if number not in self._gaps:
            before = next((i for i in range(number - 1, -1, -1) if self._is_measured(i)), -1)
            after = next((i for i in range(number + 1, len(self._maps)) if self._is_measured(i)), -1)
            if before < 0 and after < 0:
                raise InputError(f"{self._source.path} holds no depth at all: every pixel is 0, NaN or infinite.")
            for i in range(before + 1, after if after >= 0 else len(self._maps)):
                nearest = before if before >= 0 and (after < 0 or i - before <= after - i) else after
                self._gaps[i] = nearest
        return self._gaps[number]

    def _is_measured(self, number: int) -> bool:
        return self._oriented([number])[0] is not None


def _check_shape(own: Size, size: Size) -> list[str]:
    if near_ratio(own, size):
        return []
    if near_ratio(own[::-1], size):
        raise InputError(
            f"The frames are {describe_size(size)} but the depth is {describe_size(own)}; is it of frames that "
            "were not turned upright? Give depth of the upright frames.",
            field="depth",
        )
    return [  # of networks that see squares, for instance
        f"The depth is {describe_size(own)}, another shape of picture than the frames, {describe_size(size)}; "
        "it was stretched to them."
    ]
