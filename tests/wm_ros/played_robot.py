"""A robot that a test plays: its camera, its joints and the people beside it."""

from __future__ import annotations

import time

import numpy as np

PERIOD_S = 0.04  # of the tiny policy


class PlayedRobot:
    """Publishes frames and joint states at the policy's rate while the watcher spins.

    Attributes that a test changes as it goes on: ``picture`` draws a frame, None is a silent
    camera; ``joints`` holds positions by name, empty is silent joints.
    """

    def __init__(self, watcher) -> None:
        from sensor_msgs.msg import Image, JointState

        from wm_ros import qos

        self.watcher, node = watcher, watcher.node
        self._rng = np.random.default_rng(0)
        self.picture = self.noise
        self.joints: dict[str, float] = {}
        self._camera = node.create_publisher(Image, "image_raw", qos.sensor())
        self._joints = node.create_publisher(JointState, "joint_states", qos.sensor())
        node.create_timer(PERIOD_S, self._publish)

    def noise(self) -> np.ndarray:
        return self._rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)

    def _publish(self) -> None:
        from wm_ros.sensors.camera import to_image
        from wm_ros.sensors.joint_states import from_vector

        if self.joints:
            values = np.array([*self.joints.values()])
            self._joints.publish(from_vector(values, time.time_ns(), [*self.joints]))
        if self.picture is not None:
            self._camera.publish(to_image(self.picture(), time.time_ns(), "camera_optical"))

    def trigger(self, name: str):
        """Calls a service of the policy node; its answer."""
        from std_srvs.srv import Trigger

        return self.watcher.call(Trigger, f"policy/{name}", Trigger.Request())

    def settle(self, messages: list, count: int = 15) -> list:
        """Waits for so many more messages, and gives those."""
        seen = len(messages)
        self.watcher.until(lambda: len(messages) >= seen + count, f"{count} more messages")
        return messages[seen : seen + count]

    def wait_until(self, messages: list, holds, what: str, count: int = 5) -> None:
        """Waits until ``holds`` is true of the last ``count`` messages."""
        self.watcher.until(
            lambda: len(messages) >= count and all(holds(m) for m in messages[-count:]), what
        )
