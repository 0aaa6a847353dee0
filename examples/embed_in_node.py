"""amodal inside a node of a robot: pictures come in from a callback, results go out to one, a thread computes.

    python embed_in_node.py

`AmodalNode` is what to copy. `submit` takes a millisecond: it may be called from the callback of a subscriber (ROS,
ZeroMQ, a camera's driver). The thread owns the model, since a model is used by one thread at a time, and the stream
always takes the newest pictures. An error in the thread ends the node, and `close` raises it.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

import amodal
from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_results import StreamResult
from amodal.runtime.scenes import make_scene


class AmodalNode:
    """Finds the whole objects in the newest pictures, in a thread of its own, until it is closed."""

    def __init__(self, bundle: str, publish: Callable[[StreamResult], None], steps: int = 6) -> None:
        self._bundle, self._publish, self._steps = bundle, publish, steps
        self._stream: Stream | None = None
        self._ready = threading.Event()
        self._executor = ThreadPoolExecutor(1, "amodal")
        self._work = self._executor.submit(self._run)
        self._work.add_done_callback(lambda _: self._ready.set())

    def wait(self) -> None:
        """Waits until pictures may come."""
        self._ready.wait()

    def submit(self, masks: Mapping[int, NDArray[np.bool_]], depth: NDArray[np.float32], stamp: float) -> None:
        """Hands in visible pixels by object, bool [h, w], and nearness, float32 [h, w], at a time in seconds."""
        if self._stream is not None and not self._stream.closed:
            self._stream.push(None, masks, depth, stamp)

    def close(self) -> None:
        """Lets the thread finish what it computes, frees the model, and raises what went wrong in it."""
        self.wait()
        if self._stream is not None:
            self._stream.close()
        self._executor.shutdown()
        self._work.result()

    def _run(self) -> None:
        with amodal.load(self._bundle) as model:
            model.warm_up(["segment"], from_rgb=False, steps=self._steps)
            with model.stream(steps=self._steps, lookahead=1, depth_kind="relative") as stream:
                self._stream = stream
                self._ready.set()
                while not stream.closed:
                    for result in stream.poll(wait=1.0):
                        self._publish(result)


def main() -> None:
    """Publishes a drawn scene at a fixed rate and prints what comes back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="default", help="a bundle's folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="denoising steps (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=64, help="pictures to publish (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=8.0, help="pictures a second (default: %(default)s)")
    args = parser.parse_args()

    def publish(result: StreamResult) -> None:
        late = time.monotonic() - result.stamp
        for found in result.objects.values():
            print(
                f"{found.mask.sum()} pixels of the object, {found.status}, {late:.2f} s late, "
                f"{result.skipped} pictures passed by"
            )

    scene = make_scene(seed=8, frames=args.pictures, size=(240, 320))
    node = AmodalNode(args.bundle, publish, args.steps)
    try:
        node.wait()
        for modal, depth in zip(scene.modal, scene.depth, strict=True):
            node.submit({1: modal}, depth, time.monotonic())
            time.sleep(1 / args.rate)
    finally:
        node.close()


if __name__ == "__main__":
    main()
