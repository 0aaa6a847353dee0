"""The calls that a run of SAMEO makes, and the shapes that its engines accept."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ...arrays.resampling import Size
from ...builds.store import Profile, make_profile
from ...bundle.manifest import Manifest, TensorEntry
from ...errors import InputError
from ...execution.run import Calls, ComponentCall, Phase, Run
from .config import MASKS, TASK, Config, config_of
from .encoding import PICTURES_AT_ONCE
from .shape import PictureRun

_FLOAT = 4  # bytes


def profiles(manifest: Manifest, component: str) -> tuple[Profile, ...]:
    """Returns the profiles of a component's engine; see `amodal.runtime.execution.family.Family`."""
    entry, most = manifest.components[component], config_of(manifest).boxes_at_once
    if entry.kind == "mask_decoder":
        return (make_profile(_boxes(most), entry.inputs, {"boxes": (1, most, most)}),)
    one, several = (1, 1, 1), (2, PICTURES_AT_ONCE, PICTURES_AT_ONCE)
    return tuple(
        make_profile(name, entry.inputs, {"pictures": sizes})
        for name, sizes in (("pictures=1", one), (f"pictures<={PICTURES_AT_ONCE}", several))
    )


def calls(manifest: Manifest, run: Run | None = None) -> Calls:
    """Returns every call of a run on one picture; see `amodal.runtime.execution.family.Family`.

    Activations of the decoder are taken to grow with the boxes of a call.

    Raises:
        InputError: a task that the bundle lacks, or more boxes at once than it takes.
    """
    config, shape = config_of(manifest), _resolved(manifest, run)
    boxes, size = shape.boxes or config.boxes_at_once, shape.given or config.size
    keys = manifest.tasks[TASK].components
    encode = ComponentCall(keys["image_encoder"], {"pictures": 1}, 1, "pictures=1")
    share = Fraction(boxes, config.boxes_at_once)
    decode = ComponentCall(keys["mask_decoder"], {"boxes": boxes}, 1, _boxes(config.boxes_at_once), share)
    encoded = _output_bytes(manifest.components[keys["image_encoder"]].outputs)
    phases = (
        Phase(TASK, "encode", (encode,), {"pixels": _pixel_bytes(config, size), "encoding": encoded}),
        Phase(TASK, "decode", (decode,), {"encoding": encoded} | _mask_buffers(config, boxes, size)),
    )
    return Calls(shape, phases, share != 1)


def _resolved(manifest: Manifest, run: Run | None) -> PictureRun:
    """Returns a run with its tasks named, and the bundle's defaults filled in."""
    given = run or PictureRun()
    shape = given if isinstance(given, PictureRun) else PictureRun(given.tasks)
    for task in shape.tasks:
        if task not in manifest.tasks:
            raise InputError(f"the bundle has no {task} stage, only {', '.join(manifest.tasks)}.", field="stage")
    most = config_of(manifest).boxes_at_once
    if shape.boxes is not None and not 1 <= shape.boxes <= most:
        raise InputError(f"{shape.boxes} boxes at once: this bundle takes 1 to {most}.", field="batch")
    return replace(shape, tasks=shape.tasks or tuple(manifest.tasks), boxes=shape.boxes or most)


def _boxes(most: int) -> str:
    return f"boxes<={most}"


def _output_bytes(outputs: tuple[TensorEntry, ...]) -> int:
    """Returns the bytes of a network's outputs for one picture."""
    total = 0
    for tensor in outputs:
        count = 1
        for length in tensor.shape:
            count *= 1 if isinstance(length, str) else length
        total += _FLOAT * count
    return total


def _pixel_bytes(config: Config, size: Size) -> int:
    """Returns the peak bytes of a picture while it is resized to the encoder's input."""
    source, wide, result = (3 * _FLOAT * h * w for h, w in (size, (size[0], config.width), config.size))
    if size == config.size:
        return source + 2 * result  # the floats, their transpose, and the batch
    return max(source + 3 * wide, source + wide + 3 * result)


def _mask_buffers(config: Config, boxes: int, size: Size) -> dict[str, int]:
    """Returns the bytes of the decoder's logits, those of the chosen masks at the picture's size, and their resizing.

    A mask at a time is resized if pictures are large: the pieces of `torch_bicubic` are of 4 million values.
    """
    low = config.low_size[0] * config.low_size[1]
    wide, full = config.low_size[0] * size[1], size[0] * size[1]
    at_once = min(boxes, max(1, (1 << 22) // (max(config.low_size[0], size[0]) * max(config.low_size[1], size[1]))))
    resizing = _FLOAT * at_once * max(3 * wide, wide + 3 * full)
    return {
        "logits": _FLOAT * boxes * (MASKS + 1) * low,
        "masks": boxes * full * (2 * _FLOAT + 1),  # pieces and all of them as floats, and as bool
        "resizing": resizing,
    }
