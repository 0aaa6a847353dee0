"""Robots: messages, bags, ROS 2 and cameras; never torch, and no ROS where it is not asked for."""
