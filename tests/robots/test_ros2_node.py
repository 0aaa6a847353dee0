"""The node over real ROS 2, in a process of its own."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: see docs/robots.md")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

pytestmark = pytest.mark.slow


@contextmanager
def serving(milliseconds: float) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("ros2_node.py")
    command = [sys.executable, script, str(milliseconds), "--ros-args", "-p", "reliable:=true"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


class Camera:
    """A publisher of masks and depth, and what came back."""

    def __init__(self) -> None:
        self.node = rclpy.create_node(f"camera_{os.getpid()}")
        self.masks, self.depth = (self.node.create_publisher(Image, topic, 10) for topic in ("masks", "depth"))
        self.planes: list[list[Any]] = [[], []]
        self.reports: list[Any] = []
        for number, found in enumerate(self.planes):
            topic = f"/amodal/whole/plane_{number}"
            self.node.create_subscription(Image, topic, found.append, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.reports.append, 10)

    def shoot(self, labels: Any, stamp: Any = None) -> Any:
        stamp = self.node.get_clock().now().to_msg() if stamp is None else stamp
        depth = np.full(labels.shape, 2000, "<u2")
        for publisher, picture in [(self.masks, labels), (self.depth, depth)]:
            encoding = "mono16" if publisher is self.masks else "16UC1"
            message = Image(height=picture.shape[0], width=picture.shape[1], encoding=encoding)
            message.step, message.data = 2 * picture.shape[1], array.array("B", picture.tobytes())
            message.header.stamp, message.header.frame_id = stamp, "camera"
            publisher.publish(message)
        return stamp

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def connect(self) -> None:
        self.spin(20, lambda: bool(self.masks.get_subscription_count() and self.depth.get_subscription_count()))
        self.spin(1.0)


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init()
    try:
        yield Camera()
    finally:
        rclpy.shutdown()


def picture(number: int) -> Any:
    labels = np.zeros((480, 640), "<u2")
    labels[100:200, 100 + number : 300 + number] = 7
    labels[300:400, 200:400] = 900
    return labels


def test_every_frame_at_10_hz_is_answered_with_its_stamp_and_labels(camera: Camera) -> None:
    with serving(5):
        camera.connect()
        stamps = []
        for number in range(30):
            stamps.append(camera.shoot(picture(number)))
            camera.spin(0.1)
        camera.spin(5, lambda: len(camera.planes[0]) >= 30)
        assert [message.header.stamp for message in camera.planes[0]] == stamps
        assert {message.header.frame_id for message in camera.planes[0]} == {"camera"}
        last = camera.planes[0][-1]
        labels = np.frombuffer(last.data, "<u2").reshape(480, 640)
        shown = picture(29)
        # The stub draws what is seen, at the networks' size: nothing of what is visible is lost.
        assert np.array_equal(labels[shown > 0], shown[shown > 0])
        camera.spin(1.5)
        values = {value.key: value.value for value in camera.reports[-1].status[0].values}
        assert values["pushed"] == values["answered"] == "30"
        assert values["refused"] == values["dropped"] == "0"


def test_a_frame_that_cannot_be_right_is_reported_and_the_next_is_answered(camera: Camera) -> None:
    with serving(5):
        camera.connect()
        camera.shoot(np.zeros((480, 640), "<u2"))  # nothing is seen yet
        camera.spin(1.5)
        assert camera.reports[-1].status[0].level == b"\x00"
        camera.shoot(picture(0))
        camera.spin(5, lambda: bool(camera.planes[0]))
        assert len(camera.planes[0]) == 1
        camera.shoot(picture(1)[:100])
        camera.spin(5, lambda: any("100" in report.status[0].message for report in camera.reports))
        said = [report.status[0].message for report in camera.reports]
        assert any("100" in message for message in said), said
        assert camera.reports[-1].status[0].level == b"\x01"
        camera.shoot(picture(2))
        camera.spin(5, lambda: len(camera.planes[0]) == 2)
        assert len(camera.planes[0]) == 2


def test_a_node_that_was_killed_mid_stream_is_ready_again(camera: Camera) -> None:
    number = 0
    for _ in range(2):
        with serving(5):
            camera.spin(0.2)  # what the node before had sent
            before, begin = len(camera.planes[0]), number
            while len(camera.planes[0]) < before + 3 and number < begin + 100:
                camera.shoot(picture(number % 30))
                camera.spin(0.1)
                number += 1
            assert len(camera.planes[0]) >= before + 3
