"""`amodal ros2`."""

from __future__ import annotations

import click

from amodal.runtime.errors import MissingDependencyError


@click.command(
    "ros2", context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=True
)
@click.option("--configure/--wait", default=True, help="Activate at once, or wait for a manager to.")
@click.argument("ros", nargs=-1, type=click.UNPROCESSED, metavar="[--ros-args ...]")
def command(configure: bool, ros: tuple[str, ...]) -> None:
    """Run a ROS 2 lifecycle node: label images and depth in, whole objects out.

    Topics masks and depth (sensor_msgs/Image) are remapped as in any node, and parameters set with -p or a file.

    \b
    Examples:
      amodal ros2 --ros-args -r masks:=/segmenter/labels -r depth:=/camera/depth
      amodal ros2 --ros-args -p bundle:=default -p every:=2 -p preset:=auto
      amodal ros2 --wait --ros-args --params-file amodal.yaml
    """
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException

        from amodal.ros2 import AmodalNode
    except ImportError as error:
        raise MissingDependencyError(
            f"rclpy cannot be imported by this Python ({error}); source your ROS 2, with its Python, or run "
            "`pip install ros-jazzy-rclpy ros-jazzy-rmw-fastrtps-cpp ros-jazzy-sensor-msgs ros-jazzy-diagnostic-msgs` "
            "with Python 3.11."
        ) from error
    rclpy.init(args=list(ros))
    node = AmodalNode()
    try:
        if configure:
            _activate(node)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _activate(node: object) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    for transition in (node.trigger_configure, node.trigger_activate):  # type: ignore[attr-defined]
        if transition() != TransitionCallbackReturn.SUCCESS:
            raise click.ClickException("the node could not be started; its log says why.")
