"""Clips stored in many ways and spoilt in many others, each with the masks that are meant.

A case is drawn from a seed: how frames and masks are named and stored, and what then happened to them. What is meant is
known from what was drawn: which of two objects, in which frame. Frame i shows its number in its colours.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from amodal.runtime.files.clip import Clip, ClipFiles

HEIGHT, WIDTH = 30, 48
y, x = np.mgrid[:HEIGHT, :WIDTH]
STEP = 12  # of the frames' red, by which a frame that was read is recognised
DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


@dataclass
class Case:
    """A clip on disk, how it is asked for, and what is meant."""

    root: Path
    draw: random.Random
    count: int
    steps: list[str] = field(default_factory=list)  # what was drawn, for whoever looks at a failure
    asked: dict[str, Any] = field(default_factory=dict)
    meant: str = "disc"
    soft: bool = False  # edges may move: the storage blurs them

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    @property
    def masks(self) -> Path:
        return next(path for path in self.root.iterdir() if path.stem == "masks")

    def files(self) -> ClipFiles:
        """The call of `read_clip`."""
        return ClipFiles(self.frames, self.masks, **self.asked)

    def disc(self, i: int) -> Any:
        return (x - 9 - 3 * i) ** 2 + (y - 11) ** 2 < 36

    def bar(self, i: int) -> Any:
        return (abs(y - 24) < 4) & (abs(x - 30 + i) < 9)

    def wrong(self, clip: Clip) -> float:
        """The largest share of pixels in which a frame's mask is not the one that is meant."""
        shares = [0.0]
        for frame, mask in zip(clip.frames, clip.modal, strict=True):
            i = round((float(np.median(frame[..., 0])) - 20) / STEP)
            if mask.any() or self.meant != "gone":
                shares.append(float((mask != (self.disc(i) if self.meant == "disc" else self.bar(i))).mean()))
        return max(shares)


def make_case(root: Path, seed: int) -> Case:
    """Writes the case of a seed into an empty folder."""
    draw = random.Random(seed)
    case = Case(root, draw, draw.randint(2, 7))
    forms = ["{:05d}", "{}", "frame_{:03d}", "shot2_{:04d}", "{:05d}_rgb"]
    form = draw.choice(forms)
    first = draw.choice([0, 0, 0, 1, 10])
    _write_frames(case, [form.format(first + i) for i in range(case.count)])
    other = draw.choice([form, form, draw.choice(forms), "mask_{:04d}", "{:03d}_7"])
    _write_masks(case, [other.format(first + i) for i in range(case.count)])
    for _ in range(draw.choice([0, 1, 1, 2])):
        change = draw.choice(_CHANGES)
        case.steps.append(change.__name__)
        change(case)
    return case


def _write_frames(case: Case, names: list[str]) -> None:
    case.frames.mkdir()
    kind = case.draw.choice(["png", "png", "jpg", "bmp", "webp", "png16"])
    case.steps.append(f"frames {kind} {names[0]}")
    for i, name in enumerate(names):
        picture = np.stack([np.full_like(x, 20 + STEP * i), 40 + 3 * y, 60 + 2 * x], axis=-1).astype(np.uint8)
        if kind == "png16":
            Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(case.frames / f"{name}.png")
        else:
            Image.fromarray(picture).save(case.frames / f"{name}.{kind}")


def _write_masks(case: Case, names: list[str]) -> None:
    store = case.draw.choice(_STORES)
    case.steps.append(f"masks {store.__name__} {names[0]}")
    store(case, names)


def _pictures(
    case: Case, names: list[str], picture: Callable[[int], Image.Image], suffix: str = "png", **how: Any
) -> None:
    folder = case.root / "masks"
    folder.mkdir()
    for i, name in enumerate(names):
        picture(i).save(folder / f"{name}.{suffix}", **how)


def _two(case: Case, i: int, disc: Any, bar: Any, none: Any = 0) -> Any:
    """Values of both objects; the disc is in front."""
    values = np.where(case.bar(i)[..., None], np.atleast_1d(bar), np.atleast_1d(none))
    return np.where(case.disc(i)[..., None], np.atleast_1d(disc), values).squeeze(-1 if np.ndim(disc) == 0 else ())


def binary(case: Case, names: list[str]) -> None:
    high = case.draw.choice([255, 255, 1, 3, 100, 128, 200])
    _pictures(case, names, lambda i: Image.fromarray(case.disc(i).astype(np.uint8) * np.uint8(high)))


def binary_in_another_mode(case: Case, names: list[str]) -> None:
    mode = case.draw.choice(["1", "RGB", "RGBA", "LA", "P", "I;16", "I"])
    suffix = "tif" if mode == "I" else "png"

    def picture(i: int) -> Image.Image:
        mask = case.disc(i)
        if mode == "I;16":
            return Image.fromarray(mask.astype(np.uint16) * 65535)
        if mode == "I":
            return Image.fromarray(mask.astype(np.int32) * 5)
        return Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).convert(mode)

    case.steps.append(mode)
    _pictures(case, names, picture, suffix)


def jpeg(case: Case, names: list[str]) -> None:
    case.soft = True
    quality = case.draw.choice([40, 75, 95])
    _pictures(
        case, names, lambda i: Image.fromarray(case.disc(i).astype(np.uint8) * np.uint8(255)), "jpg", quality=quality
    )


def soft(case: Case, names: list[str]) -> None:
    case.soft = True
    radius = case.draw.choice([0.5, 1, 2])
    blur = ImageFilter.GaussianBlur(radius)
    _pictures(case, names, lambda i: Image.fromarray(case.disc(i).astype(np.uint8) * np.uint8(255)).filter(blur))


def alpha(case: Case, names: list[str]) -> None:
    rgb = case.draw.choice([np.full((HEIGHT, WIDTH, 3), 255), np.zeros((HEIGHT, WIDTH, 3)), np.dstack([x, y, x + y])])
    _pictures(case, names, lambda i: Image.fromarray(np.dstack([rgb, case.disc(i) * 255]).astype(np.uint8)))


def grey_ids(case: Case, names: list[str]) -> None:
    disc, bar = case.draw.sample([1, 2, 3, 20, 100, 130, 160, 200, 254, 255], 2)
    case.asked["object_id"] = case.draw.choice([None, disc, str(disc)])
    case.steps.append(f"disc {disc} bar {bar}")
    _pictures(case, names, lambda i: Image.fromarray(_two(case, i, disc, bar).astype(np.uint8)))


def deep_ids(case: Case, names: list[str]) -> None:
    disc, bar = case.draw.sample([1, 2, 300, 1001, 2002, 40000, 65535], 2)
    case.asked["object_id"] = case.draw.choice([None, disc])
    case.steps.append(f"disc {disc} bar {bar}")
    _pictures(case, names, lambda i: Image.fromarray(_two(case, i, disc, bar).astype(np.uint16)))


def palette_ids(case: Case, names: list[str]) -> None:
    disc, bar = case.draw.sample([1, 2, 3], 2)
    case.asked["object_id"] = case.draw.choice([None, disc])
    case.steps.append(f"disc {disc} bar {bar}")

    def picture(i: int) -> Image.Image:
        image = Image.fromarray(_two(case, i, disc, bar).astype(np.uint8))
        image.putpalette(DAVIS)
        return image

    _pictures(case, names, picture)


def colours(case: Case, names: list[str]) -> None:
    known = [(255, 0, 0), (255, 255, 0), (128, 0, 0), (0, 128, 0), (0, 0, 200), (255, 255, 255)]
    disc, bar = case.draw.sample(known, 2)
    text = case.draw.choice(["#{:02x}{:02x}{:02x}", "{},{},{}"]).format(*disc)
    case.asked["object_id"] = case.draw.choice([None, text])
    none = case.draw.choice([(0, 0, 0), (0, 0, 0), (255, 255, 255), (10, 200, 220)])
    case.steps.append(f"disc {disc} bar {bar} on {none}")
    if none in (disc, bar):
        none = (0, 0, 0)
    _pictures(case, names, lambda i: Image.fromarray(_two(case, i, disc, bar, none).astype(np.uint8)))


def arrays(case: Case, names: list[str]) -> None:
    kind = case.draw.choice(["bool", "bytes", "ids", "floats", "logits"])
    case.steps.append(kind)
    masks = np.stack([case.disc(i) for i in range(case.count)])
    stored = {
        "bool": masks,
        "bytes": masks.astype(np.uint8) * np.uint8(255),
        "ids": np.stack([_two(case, i, 2, 1) for i in range(case.count)]).astype(np.int64),
        "floats": masks.astype(np.float32),
        "logits": np.where(masks, 7.5, -6.0).astype(np.float32),
    }[kind]
    if kind == "ids":
        case.asked["object_id"] = case.draw.choice([None, 2])
    np.savez(case.root / "masks.npz", masks=stored)


def array_per_frame(case: Case, names: list[str]) -> None:
    (case.root / "masks").mkdir()
    case.asked["object_id"] = case.draw.choice([None, 2])
    for i, name in enumerate(names):
        np.save(case.root / "masks" / f"{name}.npy", _two(case, i, 2, 1).astype(np.uint16))


def stack(case: Case, names: list[str]) -> None:
    images = [Image.fromarray(case.disc(i).astype(np.uint8) * np.uint8(255)) for i in range(case.count)]
    suffix = case.draw.choice(["gif", "tif"])
    images[0].save(case.root / f"masks.{suffix}", save_all=True, append_images=images[1:])


def _rle(mask: Any) -> dict[str, Any]:
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    bounds = [0, *edges] + ([mask.size] if not edges or edges[-1] != mask.size else [])
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}


def coco(case: Case, names: list[str]) -> None:
    ids = case.draw.choice([(1, 2), ("cup", "bar"), (0, 7)])
    case.asked["object_id"] = case.draw.choice([None, ids[0], str(ids[0])])
    images = [
        {"id": 5 + i, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH} for i, name in enumerate(names)
    ]
    annotations = [
        {"id": 10 * i + k, "image_id": 5 + i, "category_id": 1, "track_id": ids[k], "segmentation": _rle(mask)}
        for i in range(case.count)
        for k, mask in enumerate((case.disc(i), case.bar(i)))
    ]
    case.draw.shuffle(images)
    (case.root / "masks.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def sam_2(case: Case, names: list[str]) -> None:
    case.asked["object_id"] = case.draw.choice([None, 1])
    document = {str(i): {"1": _rle(case.disc(i)), "2": _rle(case.bar(i))} for i in range(case.count)}
    (case.root / "masks.json").write_text(json.dumps(document))


def folder_per_object(case: Case, names: list[str]) -> None:
    case.asked["object_id"] = case.draw.choice([None, "0", 0])
    (case.root / "masks").mkdir()
    for number, mask in (("000", case.disc), ("001", case.bar)):
        folder = case.root / "masks" / number
        folder.mkdir()
        for i, name in enumerate(names):
            Image.fromarray(mask(i).astype(np.uint8) * np.uint8(255)).save(folder / f"{name}.png")


_STORES = [
    binary, binary, binary_in_another_mode, jpeg, soft, alpha, grey_ids, deep_ids, palette_ids, colours, arrays,
    array_per_frame, stack, coco, sam_2, folder_per_object,
]  # fmt: skip


def _files(case: Case, what: str) -> list[Path]:
    place = case.frames if what == "frames" else case.masks
    return sorted(path for path in place.rglob("[!.]*") if path.is_file()) if place.is_dir() else [place]


def _opened(file: Path) -> Image.Image | None:
    """A picture, or None for what an earlier change has spoilt."""
    with suppress(OSError, SyntaxError, ValueError), Image.open(file) as image:
        image.load()
        return image
    return None


def lose_files(case: Case) -> None:
    files = _files(case, case.draw.choice(["frames", "masks"]))
    for file in case.draw.sample(files, case.draw.randint(1, max(1, len(files) - 1))):
        if len(files) > 1:
            file.unlink()


def ask_for_empty_masks(case: Case) -> None:
    case.asked["missing_masks"] = "empty"
    case.meant = "disc"


def shift_names(case: Case) -> None:
    """Masks are counted from another number than frames."""
    files = _files(case, "masks")
    by = case.draw.choice([1, 2, 50])
    moved = [(file, file.with_name(f"{'x' * 9}{file.name}")) for file in files if any(c.isdigit() for c in file.stem)]
    for file, aside in moved:
        file.rename(aside)
    for file, aside in moved:
        digits = "".join(c if c.isdigit() else " " for c in file.stem).split()
        group = digits[0] if file.stem.endswith("_7") else digits[-1]
        at = file.name.rindex(group) if not file.stem.endswith("_7") else file.name.index(group)
        name = file.name[:at] + f"{int(group) + by:0{len(group)}d}" + file.name[at + len(group) :]
        aside.rename(file.with_name(name))


def say_nothing(case: Case) -> None:
    """Masks have names without numbers, in their order."""
    if case.masks.is_dir():
        for folder in {file.parent for file in _files(case, "masks")}:
            kept = [file for file in sorted(folder.iterdir()) if file.is_file()]
            numbers = [int("".join(c for c in file.stem.removesuffix("_7") if c.isdigit()) or 0) for file in kept]
            for place, (_, file) in enumerate(sorted(zip(numbers, kept, strict=True))):
                file.rename(file.with_name("abcdefghijklmnop"[place] + file.suffix))


def truncate(case: Case) -> None:
    file = case.draw.choice(_files(case, case.draw.choice(["frames", "masks"])))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * case.draw.random())])


def flip_a_byte(case: Case) -> None:
    file = case.draw.choice(_files(case, "masks"))
    if file.suffix in (".json", ".npy", ".jpg", ".tif", ".gif"):  # formats without a checksum hold any values
        return
    data = bytearray(file.read_bytes())
    data[case.draw.randrange(len(data))] ^= 1 << case.draw.randrange(8)
    file.write_bytes(bytes(data))


def litter(case: Case) -> None:
    for place in (case.frames, case.masks):
        if place.is_dir() and not any(path.is_dir() for path in place.iterdir()):
            (
                place / case.draw.choice(["notes.txt", ".DS_Store", "Thumbs.db", "palette.json", "._00000.png"])
            ).write_text("{}")


def enlarge(case: Case) -> None:
    """Masks are larger than frames, of their shape or not."""
    rows, columns = case.draw.choice([(2, 2), (3, 3), (1, 2)])
    for file in _files(case, "masks"):
        image = _opened(file)
        if file.suffix == ".png" and image is not None:
            image.resize((image.width * columns, image.height * rows), Image.Resampling.NEAREST).save(file)


def turn(case: Case) -> None:
    """Frames lie on their side, with an EXIF orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in _files(case, "frames"):
        image = _opened(file)
        if file.suffix in (".jpg", ".png") and "16" not in case.steps[0] and image is not None:
            image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)


def trim(case: Case) -> None:
    from amodal.runtime.files.trimming import Moment, Trim

    case.asked["trim"] = Trim(Moment(case.draw.randint(0, 2)), None, Moment(case.draw.randint(1, 2)))


def twin(case: Case) -> None:
    file = case.draw.choice(_files(case, "frames"))
    shutil.copy(file, file.with_suffix(".tiff" if file.suffix != ".tiff" else ".png"))


def ask_for_another_id(case: Case) -> None:
    case.asked["object_id"] = case.draw.choice(["99", "nothing", "#123456", -1, ""])
    case.meant = "refused"


_CHANGES = [
    lose_files, ask_for_empty_masks, shift_names, say_nothing, truncate, flip_a_byte, litter, enlarge, turn, trim, twin,
    ask_for_another_id,
]  # fmt: skip
