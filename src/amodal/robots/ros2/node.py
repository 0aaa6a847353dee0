"""A lifecycle node around `Model.stream`: label images and depth in, whole objects out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile, qos_profile_sensor_data

from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_results import StreamResult
from amodal.runtime.errors import AmodalError
from amodal.runtime.loading import load

from ..messages.images import fill_labels, masks_of, place_in_planes, read_depth, read_labels
from ..messages.pairing import Pairing
from .figures import Figures, Limits

PARAMETERS: dict[str, Any] = {
    "bundle": "default",
    "backend": "onnxruntime",
    "device": "",
    "every": 2,
    "lookahead": 2,
    "deadline": 0.0,
    "preset": "fast",
    "reliable": False,
    "tolerance": 0.02,
    "planes": 2,
    "warn_latency": 0.5,
    "error_latency": 2.0,
    "silence": 2.0,
    "diagnostics_period": 1.0,
}
"""The node's parameters and their defaults; docs/robots.md says what each means."""

_WAIT = 0.2  # seconds after which the thread looks whether it should end
_TOPICS = ("masks", "depth")
_RELIABLE = QoSProfile(depth=5)  # the newest five; a publisher of it serves best-effort subscribers too

OpenStream = Callable[[dict[str, Any], ExitStack], Callable[[], Stream]]
"""Loads what the parameters ask for, into the stack that frees it, and returns what opens a stream."""


def open_model(parameters: dict[str, Any], stack: ExitStack) -> Callable[[], Stream]:
    """Loads a bundle and warms it up; see `OpenStream`."""
    device = parameters["device"] or None
    model = stack.enter_context(load(parameters["bundle"], backend=parameters["backend"], device=device))
    model.warm_up(["segment"], from_rgb=False)
    options = {name: parameters[name] for name in ("every", "lookahead", "preset")}
    return partial(model.stream, **options, deadline=parameters["deadline"] or None, depth_kind="metric")


class AmodalNode(LifecycleNode):  # type: ignore[misc]  # rclpy has no types
    """Whole objects of the label images on `masks` with the distances on `depth`.

    Configuring loads the bundle and warms it up, so that an active node is ready. A second thread computes, always on
    the newest frames. Whatever is wrong with a frame leaves out that frame and is reported on `/diagnostics`.

    Args:
        name: of the node.
        open_stream: what is run; None for the bundle of the parameters.
        others: arguments of rclpy's node, such as `namespace` and `parameter_overrides`.
    """

    def __init__(self, name: str = "amodal", *, open_stream: OpenStream | None = None, **others: Any) -> None:
        super().__init__(name, **others)
        for parameter, value in PARAMETERS.items():
            self.declare_parameter(parameter, value)
        self._open = open_stream or open_model
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._headers: dict[float, Any] = {}
        self._stream: Stream | None = None
        self._working: Future[None] | None = None
        self._diagnostics: Any = None

    def on_configure(self, state: Any) -> Any:
        """Loads and warms up; fails, with one line in the log, if that is not possible."""
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image

        self._given = {parameter: self.get_parameter(parameter).value for parameter in PARAMETERS}
        try:
            self._new_stream = self._open(self._given, self._stack)
            self._new_stream().close()  # so that options out of range are refused here
        except AmodalError as error:
            self._stack.close()
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._whole = [
            self.create_lifecycle_publisher(Image, f"~/whole/plane_{plane}", _RELIABLE)
            for plane in range(self._given["planes"])
        ]
        self._reports = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> Any:
        """Begins with an empty history."""
        from sensor_msgs.msg import Image

        given = self._given
        self._figures = Figures(Limits(given["warn_latency"], given["error_latency"], given["silence"]), self._now())
        self._pairing, self._last = Pairing(_TOPICS, given["tolerance"]), -1.0
        self._stream, self._active = self._new_stream(), True
        self._executor = ThreadPoolExecutor(1, "amodal")
        self._working = self._executor.submit(self._work)
        self._inputs = [
            self.create_subscription(
                Image,
                topic,
                partial(self._take, topic),
                _RELIABLE if given["reliable"] else qos_profile_sensor_data,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=partial(self._report_qos, topic)),
            )
            for topic in _TOPICS
        ]
        self._diagnostics = self.create_timer(given["diagnostics_period"], self._report)
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> Any:
        """Lets the thread finish its window, and takes no more frames."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        """Frees the model."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> Any:
        """Stops and frees everything."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stops and frees everything, and then what rclpy holds."""
        self._stop()
        self._stack.close()
        super().destroy_node()

    def _free(self) -> None:
        self._stop()
        for publisher in self._whole:
            self.destroy_publisher(publisher)
        self.destroy_publisher(self._reports)
        self._whole = []
        self._stack.close()

    def _stop(self) -> None:
        if self._working is None:
            return
        self._active = False
        self.destroy_timer(self._diagnostics)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        if self._stream is not None:
            self._stream.close()
        self._executor.shutdown()
        self._working = None
        self._headers.clear()

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _take(self, topic: str, message: Any) -> None:
        """Takes a message and, if it completes a frame, hands that to the stream."""
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        complete = self._pairing.add(topic, stamp, message)
        if complete is None:
            return
        at, messages = complete
        try:
            self._push(at, messages)
        except AmodalError as error:
            with self._lock:
                self._headers.pop(at, None)
            self._figures.refused(str(error))

    def _push(self, at: float, messages: dict[str, Any]) -> None:
        labels, depth = read_labels(messages["masks"]), read_depth(messages["depth"])
        masks = masks_of(labels)
        # Without objects a black picture says how large frames are; depth is given, so nothing else looks at it.
        picture = None if masks else np.zeros((*labels.shape, 3), np.uint8)
        if at < self._last:  # a bag that begins anew
            self.get_logger().warning(f"stamps went back by {self._last - at:.3f} s; the history begins anew")
            assert self._stream is not None
            self._stream.close()
            with self._lock:
                self._headers.clear()
            self._stream = self._new_stream()
        assert self._stream is not None
        with self._lock:
            self._headers[at] = messages["masks"].header
        self._stream.push(picture, masks, depth, at)
        self._last = at
        self._figures.pushed(self._now())

    def _work(self) -> None:
        """Runs windows until the node is deactivated; what nobody expected ends it, and is reported."""
        try:
            while self._active:
                assert self._stream is not None
                try:
                    results = self._stream.poll(wait=_WAIT)
                except AmodalError as error:
                    self._figures.refused(str(error))
                    continue
                for result in results:
                    self._publish(result)
        except Exception as error:  # noqa: BLE001  # the node lives on, and its diagnostics say why nothing comes
            self._figures.failed(f"nothing more is computed: {type(error).__name__}: {error}")
            self.get_logger().error(f"nothing more is computed: {type(error).__name__}: {error}")

    def _publish(self, result: StreamResult) -> None:
        from sensor_msgs.msg import Image

        with self._lock:
            header = self._headers.pop(result.stamp, None)
            for stamp in [stamp for stamp in self._headers if stamp < result.stamp]:
                del self._headers[stamp]
        if header is None:  # of before the stamps went back
            return
        masks = {int(key): found.mask for key, found in result.objects.items()}
        if masks:
            labels, left_out = place_in_planes(masks, len(self._whole))
            for publisher, plane in zip(self._whole, labels, strict=True):
                publisher.publish(fill_labels(Image(), header, plane))
            if left_out:
                names = ", ".join(map(str, left_out))
                self._figures.lasts(f"objects {names} overlap others in all {len(labels)} planes; raise `planes`.")
        deadline = self._given["deadline"]
        self._figures.answered(self._now() - result.stamp, result.skipped, 0 < deadline < result.seconds)

    def _report_qos(self, topic: str, event: Any) -> None:
        self._figures.lasts(f"QoS of a publisher of {topic} does not match; is it best-effort, and `reliable` set?")

    def _report(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        level, said, values = self._figures.status(self._now(), tuple(self._pairing.dropped.items()))
        status = DiagnosticStatus(level=bytes([level]), name=f"{self.get_name()}: stream", message=said)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._reports.publish(message)
