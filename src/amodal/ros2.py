"""The ROS 2 node `AmodalNode`, for composition with nodes of your own; needs rclpy (docs/robots.md)."""

from __future__ import annotations

from amodal.robots.ros2.node import AmodalNode

__all__ = ["AmodalNode"]
