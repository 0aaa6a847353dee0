"""amodal inside a node of a robot: pictures come in from a callback, results go out to one, a thread computes.

    python embed_in_node.py

`AmodalNode` is what to copy. `submit` never waits: it may be called from the callback of a subscriber (ROS, ZeroMQ,
a camera's driver). The thread owns the model, since a model is used by one thread at a time, and always takes the
newest pictures. An error in it ends the node, and `close` raises it.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import amodal
from amodal.runtime.errors import InputError
from amodal.runtime.scenes import make_scene


class Seen(NamedTuple):
    """The object's visible pixels, bool [h, w], and nearness, float32 [h, w], at a time in seconds."""

    stamp: float
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32]


class Result(NamedTuple):
    """The whole object, bool [h, w], in the picture of that time, and the pictures that passed meanwhile."""

    stamp: float
    whole: NDArray[np.bool_]
    passed: int


class AmodalNode:
    """Completes the newest picture again and again, in a thread of its own, until it is closed."""

    def __init__(self, bundle: str, publish: Callable[[Result], None], steps: int = 6) -> None:
        self._bundle, self._publish, self._steps = bundle, publish, steps
        self._news = threading.Condition()
        self._seen: deque[Seen] = deque(maxlen=64)
        self._waiting, self._closed = 0, False
        self._executor = ThreadPoolExecutor(1, "amodal")
        self._work = self._executor.submit(self._run)

    def submit(self, seen: Seen) -> None:
        """Hands in a picture; returns at once."""
        with self._news:
            self._seen.append(seen)
            self._waiting += 1
            self._news.notify()

    def close(self) -> None:
        """Lets the thread finish what it computes, frees the model, and raises what went wrong in it."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._executor.shutdown()
        self._work.result()

    def _run(self) -> None:
        with amodal.load(self._bundle) as model:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._closed or self._waiting)
                    if self._closed:
                        return
                    clip = list(self._seen)[-model.config.frames :]
                    passed, self._waiting = self._waiting - 1, 0
                modal, depth = np.stack([seen.modal for seen in clip]), np.stack([seen.depth for seen in clip])
                try:
                    found = model.segment(modal, depth=depth, steps=self._steps)
                except InputError as error:  # too little of the object is seen
                    print(f"passed by: {error}")
                    continue
                self._publish(Result(clip[-1].stamp, found.masks_full[-1], passed))


def main() -> None:
    """Publishes a drawn scene at a fixed rate and prints what comes back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="default", help="a bundle's folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="denoising steps (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=64, help="pictures to publish (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=8.0, help="pictures a second (default: %(default)s)")
    args = parser.parse_args()

    def publish(result: Result) -> None:
        late = time.monotonic() - result.stamp
        print(f"{result.whole.sum()} pixels of the object, {late:.2f} s late, {result.passed} pictures passed by")

    scene = make_scene(seed=8, frames=args.pictures, size=(240, 320))
    node = AmodalNode(args.bundle, publish, args.steps)
    try:
        for modal, depth in zip(scene.modal, scene.depth, strict=True):
            node.submit(Seen(time.monotonic(), modal, depth))
            time.sleep(1 / args.rate)
    finally:
        node.close()


if __name__ == "__main__":
    main()
