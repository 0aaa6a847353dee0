"""A node over a model that takes a given time, as a process of its own: `python ros2_node.py MILLISECONDS`."""

import sys
import time
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException

from amodal.bench.running.played import StubWindow
from amodal.ros2 import AmodalNode
from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_blending import BlendedWindows
from amodal.runtime.clips.stream_options import StreamOptions


def opener(seconds):
    def open_stream(parameters, stack):
        options = StreamOptions(every=1, lookahead=0, gate=None, depth_kind="metric")
        return lambda: Stream(BlendedWindows(StubWindow(8, seconds, time.sleep), 8, (64, 128), options), options)

    return open_stream


rclpy.init(args=sys.argv)
node = AmodalNode(open_stream=opener(float(sys.argv[1]) / 1000))
node.trigger_configure()
node.trigger_activate()
print("ready", flush=True)
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
node.destroy_node()
rclpy.try_shutdown()
