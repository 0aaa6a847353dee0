"""A loop over a camera: the whole objects in the newest pictures, in time.

    python live_camera.py --save seen/

The camera is drawn, and so are its detector and depth: replace `DrawnCamera` by your own source. It yields what
`cv2.VideoCapture`, a segmentation network that tracks, and a depth network (or a stereo camera) would give. Pictures
that arrive while the model computes are part of the next window; those that are too old for it are passed by.
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
from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_results import StreamResult
from amodal.runtime.files.overlay import draw_overlay
from amodal.runtime.scenes import make_scene


class Seen(NamedTuple):
    """A picture, uint8 [h, w, 3], with visible pixels by object, bool [h, w], and nearness, float32 [h, w]."""

    picture: NDArray[np.uint8]
    masks: dict[int, NDArray[np.bool_]]
    depth: NDArray[np.float32]
    stamp: float


class DrawnCamera:
    """A camera of 240x320 pixels whose driver keeps what came since it was last asked."""

    size = (240, 320)

    def __init__(self, pictures: int, rate: float) -> None:
        self._scene = make_scene(seed=8, frames=pictures, size=self.size)
        self._rate = rate

    def pictures(self) -> Iterator[list[Seen]]:
        """Yields what arrived since the last time, at least one picture, until the scene is over."""
        begin, taken, scene = time.monotonic(), 0, self._scene
        while taken < len(scene.frames):
            time.sleep(max(0.0, begin + taken / self._rate - time.monotonic()))
            arrived = min(len(scene.frames), int((time.monotonic() - begin) * self._rate) + 1)
            arrived = max(arrived, taken + 1)
            yield [
                Seen(scene.frames[t], {1: scene.modal[t]}, scene.depth[t], begin + t / self._rate)
                for t in range(taken, arrived)
            ]
            taken = arrived


def watch(stream: Stream, camera: DrawnCamera) -> Iterator[tuple[Seen, StreamResult]]:
    """Yields pictures with what is known about the objects in them, also where the camera was faster."""
    recent: deque[Seen] = deque(maxlen=64)  # those whose result may still come
    for arrived in camera.pictures():
        due = False
        for seen in arrived:
            due = stream.push(seen.picture, seen.masks, seen.depth, seen.stamp)
            recent.append(seen)
        for result in stream.poll() if due else ():
            yield next(seen for seen in recent if seen.stamp == result.stamp), result


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
        model.warm_up(["segment"], frame_size=camera.size, from_rgb=False, steps=args.steps)
        with model.stream(steps=args.steps, lookahead=1, depth_kind="relative") as stream:
            for seen, result in watch(stream, camera):
                for number, found in result.objects.items():
                    modal = seen.masks.get(number, np.zeros_like(found.mask)) & found.mask
                    hidden, late = (found.mask & ~modal).sum(), time.monotonic() - result.stamp
                    print(
                        f"picture {result.number}: {hidden} of {found.mask.sum()} pixels of object {number} are "
                        f"hidden, {found.status}, {late:.2f} s late"
                    )
                    if args.save:
                        picture = draw_overlay(seen.picture, modal, found.mask)
                        Image.fromarray(picture).save(args.save / f"{result.number:05d}.png")


if __name__ == "__main__":
    main()
