"""Examines the graph: what comes on the sensors' topics, who takes the commands, the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.spec import Spec
from wm_ros.commands import CommandSet
from wm_ros.doctor.findings import CheckResult, fail, ok, warn
from wm_ros.sensors.source import Source
from wm_ros.sensors.table import Sensors
from wm_ros.topics.operator import check_takeover
from wm_ros.topics.sensors import SensorTopics

_SLOW = 0.9  #: a pace below this share of the policy's rate is slow


class Listener:
    """Listens to the sensors of a robot for a while.

    Args:
        node: that listens.
        sensors: whose sources are heard.
        reliable: whether images are asked for reliably.
    """

    def __init__(self, node: Node, sensors: Sensors, *, reliable: bool) -> None:
        self.node, self.sensors = node, sensors
        self._closers = ExitStack()
        SensorTopics(node, self._closers, sensors, reliable=reliable, on_message=self._on_message)

    def _on_message(self, source: Source, msg: Any) -> None:
        self.sensors.on_message(source, msg, time.monotonic_ns())

    @property
    def largest_image(self) -> int:
        """Count the bytes of the largest image that came."""
        newest = [s.history.newest for s in self.sensors.sources if s.is_image]
        return max((len(heard.message.data) for heard in newest if heard is not None), default=0)

    def listen(self, seconds: float) -> None:
        """Hear the topics for ``seconds``."""
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and rclpy.ok():
            executor.spin_once(timeout_sec=0.05)
            self.sensors.drain(time.monotonic_ns())
        executor.remove_node(self.node)

    def close(self) -> None:
        """Close the subscriptions."""
        self._closers.close()


def sensors_of(listener: Listener, spec: Spec | None) -> list[CheckResult]:
    """Say of each sensor what came, and whether it fits what the policy wants."""
    sensors, node, found = listener.sensors, listener.node, []
    if spec is not None:
        try:
            sensors.begin(spec, round(spec.period_s * 1e9), 1.0)
        except SpecMismatch as error:
            return [fail("sensors", str(error), "name the sensors as the policy's inputs")]
        now_ns = node.get_clock().now().nanoseconds
        sensors.sense(fresh=True, now_ns=time.monotonic_ns(), ros_now_ns=now_ns)
    for source in sensors.sources:
        problem = source.problem()
        rate = f"{source.rate_hz:.1f} Hz" if source.rate_hz else f"{source.messages} messages"
        if problem:
            found.append(fail(source.name, problem, _advice(source)))
        elif source is sensors.first and spec is not None and _is_slow(source, spec):
            found.append(
                warn(
                    source.name,
                    f"{source.topic} comes with {rate}, the policy decides at "
                    f"{1 / spec.period_s:g} Hz",
                    "set the driver's rate, or see slower cameras in docs/robot.md",
                )
            )
        else:
            found.append(ok(source.name, f"{source.topic}, {source.message}, {rate}"))
        if source.note:
            found.append(warn(source.name, source.note, "state the joints"))
    return found


def _is_slow(source: Source, spec: Spec) -> bool:
    return 0.0 < source.rate_hz < _SLOW / spec.period_s


def _advice(source: Source) -> str:
    if not source.messages:
        camera = "camera_topic:=..., " if source.is_image else ""
        return f"start what publishes it; at launch: {camera}remap:='old:=new', or robot_file"
    return f"ros2 topic echo --once {source.topic} shows what comes"


def commands_of_graph(node: Node, commands: CommandSet, runs: bool) -> list[CheckResult]:
    """Say who takes the commands of each channel, and who else sends some.

    Args:
        node: that asks the graph.
        commands: channels of the robot.
        runs: whether the policy node runs already.
    """
    found = []
    try:
        check_takeover(commands, node.resolve_topic_name)
    except SettingsError as error:
        found.append(fail("takeover", str(error), "the node refuses to start so"))
    for channel in commands.channels:
        topic = node.resolve_topic_name(channel.command.topic)
        area, wanted = channel.command.topic, channel.command.message
        takers = node.get_subscriptions_info_by_topic(topic)
        fitting = [i for i in takers if i.topic_type.replace("/msg/", "/") == wanted]
        if fitting:
            found.append(ok(area, f"{topic}, {wanted}, taken by {_names(fitting)}"))
        elif takers:
            others = ", ".join(sorted({i.topic_type.replace("/msg/", "/") for i in takers}))
            found.append(
                fail(
                    area,
                    f"{_names(takers)} takes {others} on {topic}, the policy sends {wanted}",
                    "set command_type, or the type of the action in the robot file",
                )
            )
        else:
            found.append(
                fail(
                    area,
                    f"nobody takes the commands on {topic} ({wanted})",
                    "start the robot's driver or controller, or remap the topic",
                )
            )
        senders = node.get_publishers_info_by_topic(topic)
        if len(senders) > int(runs):
            found.append(
                warn(
                    area,
                    f"{_names(senders)} sends commands on {topic}",
                    "two senders fight: end the other one, or use its topic as takeover",
                )
            )
    return found


def clock(node: Node, use_sim_time: bool) -> list[CheckResult]:
    """Say whether the clock is the one that is meant."""
    published = node.count_publishers("/clock") > 0
    if use_sim_time and not published:
        advice = "start the simulator, or set use_sim_time: false on a real robot"
        return [fail("clock", "use_sim_time is set, and nobody publishes /clock", advice)]
    if published and not use_sim_time:
        advice = "set use_sim_time: true where stamps are simulated"
        return [warn("clock", "/clock is published, and use_sim_time is not set", advice)]
    return [ok("clock", "simulated (/clock)" if use_sim_time else "the system's")]


def _names(infos: Sequence[Any]) -> str:
    return ", ".join(sorted({f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos})[:3])
