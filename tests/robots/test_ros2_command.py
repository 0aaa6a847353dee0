"""`amodal ros2` where there is no ROS 2."""

from __future__ import annotations

import sys

import pytest
from tests.cli.conftest import issue


def test_without_rclpy_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    outcome = issue("ros2", "--ros-args", "-p", "every:=2")
    assert outcome.code == 2
    assert "rclpy cannot be imported by this Python" in outcome.err
    assert "pip install ros-jazzy-rclpy" in outcome.err
