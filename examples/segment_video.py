"""Whole masks of an object in a video of any length: frames, visible masks and depth in, masks and an overlay out.

    python segment_video.py                                   (a drawn scene, whose truth is known)
    python segment_video.py --frames rgbs/ --masks masks/ --depth depth/ --bundle bundle -o out

A bundle takes a fixed number of frames at a time, so a longer video goes through it in windows; the last one reaches
back, so that every window is full. OUT gets `masks/*.png` and `overlay.gif`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import amodal
from amodal.runtime.files.clip import ClipFiles, read_clip
from amodal.runtime.files.overlay import draw_overlay
from amodal.runtime.scenes import make_scene


def windows(count: int, length: int) -> Iterator[slice]:
    """Windows of `length` that cover `count` frames; a single shorter one if there are fewer."""
    for begin in range(0, count, length):
        begin = max(0, min(begin, count - length))
        yield slice(begin, min(begin + length, count))


def whole_masks(
    model: amodal.Model, modal: NDArray[np.bool_], depth: NDArray[np.float32], steps: int
) -> NDArray[np.bool_]:
    """The whole object, bool [T, h, w], from its visible masks [T, h, w] and depth [T, h, w], larger is nearer."""
    whole = np.zeros(modal.shape, bool)
    for window in windows(len(modal), model.config.frames):
        whole[window] = model.segment(modal[window], depth=depth[window], steps=steps).masks_full
        print(f"frames {window.start} to {window.stop - 1} of {len(modal)} are done")
    return whole


def write(out: Path, frames: NDArray[np.uint8], modal: NDArray[np.bool_], whole: NDArray[np.bool_]) -> None:
    """Writes a mask of each frame, and one animation."""
    (out / "masks").mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(whole):
        Image.fromarray(mask).save(out / "masks" / f"{number:05d}.png")
    pictures = [Image.fromarray(draw_overlay(*each)) for each in zip(frames, modal, whole, strict=True)]
    pictures[0].save(out / "overlay.gif", save_all=True, append_images=pictures[1:], duration=125, loop=0)


def main() -> None:
    """Runs on the files that were given, or on a drawn scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("frames", "masks", "depth"):
        parser.add_argument(f"--{name}", type=Path, help="a folder or file; give all three, or none for a scene")
    parser.add_argument("--bundle", default="default", help="a bundle's folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=Path("amodal-video"), help="(default: %(default)s)")
    args = parser.parse_args()
    given = [args.frames, args.masks, args.depth]
    if any(given) and not all(given):
        parser.error("give --frames, --masks and --depth together, or none of them.")

    truth = None
    if args.frames:
        clip = read_clip(ClipFiles(*given))
        frames, modal, depth = clip.frames, clip.modal, clip.depth
        print(*clip.warnings, sep="\n")
    else:
        scene = make_scene(seed=8, frames=20, size=(128, 256))
        frames, modal, depth, truth = scene.frames, scene.modal, scene.depth, scene.amodal
    with amodal.load(args.bundle) as model:
        whole = whole_masks(model, modal, depth, args.steps)
    write(args.out, frames, modal, whole)
    print(f"wrote {args.out}: {len(whole)} masks and overlay.gif; {(whole & ~modal).mean():.1%} of pixels are hidden")
    if truth is not None:
        for name, masks in (("visible masks", modal), ("whole masks", whole)):
            print(f"IoU of the {name} with the truth: {(masks & truth).sum() / (masks | truth).sum():.3f}")


if __name__ == "__main__":
    main()
