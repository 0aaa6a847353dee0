"""A loop over a camera: the whole object in the newest picture, from the last few pictures.

    python live_camera.py --save seen/

The camera is drawn, and so are its detector and depth: replace `DrawnCamera` by your own source. It yields what
`cv2.VideoCapture`, a segmentation network and a depth network (or a stereo camera) would give. Pictures that arrive
while the model computes join the clip and are not completed, as with a real camera.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import amodal
from amodal.runtime.errors import InputError
from amodal.runtime.files.overlay import draw_overlay
from amodal.runtime.scenes import make_scene


class Seen(NamedTuple):
    """A picture, uint8 [h, w, 3], with the object's visible pixels, bool [h, w], and nearness, float32 [h, w]."""

    picture: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32]


class DrawnCamera:
    """A camera of 240x320 pixels that always has a newest picture, like one whose driver keeps a single buffer."""

    def __init__(self, pictures: int, rate: float) -> None:
        self._scene = make_scene(seed=8, frames=pictures, size=(240, 320))
        self._rate = rate

    def pictures(self) -> Iterator[list[Seen]]:
        """Yields what arrived since the last time, at least one picture, until the scene is over."""
        begin, taken, scene = time.monotonic(), 0, self._scene
        while taken < len(scene.frames):
            time.sleep(max(0.0, begin + taken / self._rate - time.monotonic()))
            arrived = min(len(scene.frames), int((time.monotonic() - begin) * self._rate) + 1)
            arrived = max(arrived, taken + 1)
            yield [Seen(scene.frames[t], scene.modal[t], scene.depth[t]) for t in range(taken, arrived)]
            taken = arrived


def watch(model: amodal.Model, camera: DrawnCamera, steps: int) -> Iterator[tuple[Seen, NDArray[np.bool_], float]]:
    """Yields a picture, its whole object, bool [h, w], and the seconds that this took.

    Pictures in which too little of the object is seen to be completed are passed by.
    """
    clip: deque[Seen] = deque(maxlen=model.config.frames)
    for arrived in camera.pictures():
        if not clip:
            size = arrived[0].picture.shape[:2]
            model.warm_up(["segment"], frame_size=size, from_rgb=False, steps=steps)
        clip.extend(arrived)
        begin = time.perf_counter()
        modal, depth = np.stack([seen.modal for seen in clip]), np.stack([seen.depth for seen in clip])
        try:
            found = model.segment(modal, depth=depth, steps=steps)
        except InputError as error:
            print(f"passed by: {error}")
            continue
        yield clip[-1], found.masks_full[-1], time.perf_counter() - begin


def main() -> None:
    """Watches a drawn camera until its scene is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="default", help="a bundle's folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="denoising steps (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=48, help="pictures until the scene is over")
    parser.add_argument("--rate", type=float, default=8.0, help="pictures a second (default: %(default)s)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write an overlay of each picture")
    args = parser.parse_args()
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
    camera = DrawnCamera(args.pictures, args.rate)
    with amodal.load(args.bundle) as model:
        for number, (seen, whole, seconds) in enumerate(watch(model, camera, args.steps)):
            hidden = (whole & ~seen.modal).sum()
            print(f"picture {number}: {hidden} of {whole.sum()} pixels of the object are hidden, {seconds:.2f} s")
            if args.save:
                picture = draw_overlay(seen.picture, seen.modal, whole)
                Image.fromarray(picture).save(args.save / f"{number:05d}.png")


if __name__ == "__main__":
    main()
