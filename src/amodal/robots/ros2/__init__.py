"""The node; importing it needs rclpy."""
