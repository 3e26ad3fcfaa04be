"""Gives a simulated robot its topics: what it publishes, and the commands that it obeys; no task.

``PlainBody`` has one camera and one command, as the parameters say; ``FileBody`` has whatever a
robot file describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.views import VECTOR_KEY
from wm_core.robot import RobotFile
from wm_core.robot.parts import PrevActionPart
from wm_ros import qos
from wm_ros.commands import Command
from wm_ros.convert import set_header
from wm_ros.sensors.camera import Camera, to_image
from wm_ros.sensors.joint_states import JointStates, from_vector
from wm_ros.simulated.messages import image_message, vector_messages

#: called with the number of a limb, its command (n,) or None for stop, and the stamp in ns or 0
OnCommand = Callable[[int, np.ndarray | None, int], None]


class Limb:
    """Describes a part of the action that one topic commands.

    Args:
        command: how its messages are read.
        part: where its elements are in the action.
        rests_at_zero: whether zeros stop it; else it stays where it was sent last.
    """

    def __init__(self, command: Command, part: slice, *, rests_at_zero: bool = True) -> None:
        self.command, self.part, self.rests_at_zero = command, part, rests_at_zero

    @property
    def size(self) -> int:
        """Count its elements."""
        return self.part.stop - self.part.start


class Body(Protocol):
    """Publishes what a simulated robot observes, and hears its commands."""

    @property
    def limbs(self) -> Sequence[Limb]:
        """List the parts of the action, each with its topic."""

    def publish(self, obs: Mapping[str, np.ndarray], stamp_ns: int) -> None:
        """Publish an observation: images (H, W, C) and vectors (n,), by name."""


def _listen(node: Node, limbs: Sequence[Limb], on_command: OnCommand) -> None:
    def heard(i: int, msg: Any) -> None:
        try:
            value, stamp_ns = limbs[i].command.decode(msg, limbs[i].size)
        except SpecMismatch as error:
            node.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        on_command(i, value, stamp_ns)

    for i, limb in enumerate(limbs):
        command = limb.command
        node.create_subscription(
            command.message_class, command.topic, partial(heard, i), qos.command()
        )


def _published(names: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Choose what joint states carry: whatever has names; else one vector, read by its order."""
    named = {key: own for key, own in names.items() if own}
    first = [key for key in ("proprio", VECTOR_KEY, *names) if key in names][:1]
    return named or {key: () for key in first}


class PlainBody:
    """Has a camera, joint states where the task measures any, and one command.

    Args:
        node: that publishes and hears.
        command: message that moves it.
        size: number of elements of the action.
        names: of what is measured, by observation; () where the task does not name the numbers.
        frame_id: of the camera.
        on_command: called with every command.
    """

    def __init__(
        self,
        node: Node,
        command: Command,
        size: int,
        *,
        names: Mapping[str, tuple[str, ...]],
        frame_id: str,
        on_command: OnCommand,
    ) -> None:
        self.limbs: tuple[Limb, ...] = (Limb(command, slice(0, size)),)
        self._names, self._frame_id = _published(names), frame_id
        self._image = node.create_publisher(Image, Camera.default_topic, qos.sensor(reliable=True))
        self._joints = node.create_publisher(JointState, JointStates.default_topic, qos.signals())
        _listen(node, self.limbs, on_command)

    def publish(self, obs: Mapping[str, np.ndarray], stamp_ns: int) -> None:
        if self._names:
            vectors = {key: np.ravel(obs[key]) for key in self._names}
            names = [
                name
                for key, vector in vectors.items()
                for name in self._names[key] or (f"{key}_{i}" for i in range(vector.size))
            ]
            joined = np.concatenate([*vectors.values()])
            self._joints.publish(from_vector(joined, stamp_ns, names))
        self._image.publish(to_image(obs["image"], stamp_ns, self._frame_id))


class FileBody:
    """Has the sensors and obeys the commands of a robot file.

    Args:
        node: that publishes and hears.
        file: that describes the robot.
        frame_id: of the cameras.
        on_command: called with every command.
    """

    def __init__(
        self, node: Node, file: RobotFile, *, frame_id: str, on_command: OnCommand
    ) -> None:
        from wm_ros.commands.from_file import commands_of_channels

        self._file, self._frame_id = file, frame_id
        limbs, start = [], 0
        commands = commands_of_channels(file.actions)
        for entry, channel in zip(file.actions, commands.channels, strict=True):
            part, start = slice(start, start + entry.size), start + entry.size
            limbs.append(Limb(channel.command, part, rests_at_zero=entry.rests_at_zero))
        self.limbs = tuple(limbs)
        self._out = {
            topic: node.create_publisher(
                kind, topic, qos.sensor(reliable=True) if is_image else qos.signals()
            )
            for topic, (kind, is_image) in self._published().items()
        }
        _listen(node, self.limbs, on_command)

    def _published(self) -> dict[str, tuple[Any, bool]]:
        """List the class of each topic's message, and whether it is an image."""
        from wm_ros.convert import message_class

        return {
            topic: (message_class(part.type), part.is_image)
            for parts in self._file.observations.values()
            for part in parts
            for topic in part.topics
        }

    def check(self, space: Mapping[str, Any], action_size: int, fps: float, task: str) -> None:
        """Raise ``SettingsError`` where a task cannot play the robot of the file.

        Args:
            space: box of each observation of the task, by name.
            action_size: number of elements of the task's action.
            fps: agent steps per second of the task.
            task: its name.
        """
        size, file = sum(limb.size for limb in self.limbs), self._file
        if size != action_size:
            raise SettingsError(
                f"the robot file's actions have {size} elements, those of task {task!r} "
                f"{action_size}: set the parameter task to one that plays this robot"
            )
        if file.rate_hz is not None and abs(file.rate_hz - fps) > 1e-3 * fps:
            raise SettingsError(
                f"the robot file says rate_hz: {file.rate_hz:g}, task {task!r} takes {fps:g} "
                "steps per second"
            )
        for name, parts in file.observations.items():
            shape = getattr(space.get(name), "shape", None)
            if name in file.images:
                fits = shape is not None and len(shape) == 3
            else:
                wanted = sum(p.size for p in parts if not isinstance(p, PrevActionPart))
                fits = shape == (wanted,)
            if not fits:
                what = "an image" if name in file.images else f"{wanted} numbers"
                raise SettingsError(
                    f"the robot file's input {name!r} is {what}, task {task!r} has "
                    f"{shape or 'none of that name'}; it has {[*space]}"
                )

    def publish(self, obs: Mapping[str, np.ndarray], stamp_ns: int) -> None:
        """Publish images (H, W, C) and vectors (n,): what belongs to the pace's input last."""
        images, pace = self._file.images, self._file.paced_by
        messages: dict[str, Any] = {}
        for name, parts in self._file.observations.items():
            if name not in images:
                vector_messages(parts, np.ravel(obs[name]), messages)
        for msg in messages.values():
            if hasattr(msg, "header"):
                set_header(msg.header, stamp_ns, self._frame_id)
        for name, part in images.items():
            messages[part.topic] = image_message(part, obs[name], stamp_ns, self._frame_id)
        last = [t for part in self._file.observations[pace] for t in part.topics] if pace else []
        for topic in sorted(messages, key=lambda topic: topic in last):
            self._out[topic].publish(messages[topic])
