"""Offers what operators call and send: stop, rearm, run, and commands of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_ros import qos
from wm_ros.commands import CommandSet
from wm_ros.pilot import Pilot
from wm_ros.safety.reasons import reason_of
from wm_ros.settings import OperatorSettings

_PUBLISHERS_S = 0.25  #: seconds between two looks for who publishes the emergency stop


def check_takeover(commands: CommandSet, resolve: Callable[[str], str]) -> None:
    """Raise ``SettingsError`` where the node would hear its own command as a person's.

    It would send it again and again, whatever its camera says, for a takeover needs no camera.

    Args:
        commands: channels, each with the topic of its command and of its takeover.
        resolve: gives a topic's whole name, by namespace and remappings.
    """
    sent = {resolve(channel.command.topic): channel.command.topic for channel in commands.channels}
    for channel in commands.channels:
        heard = resolve(channel.takeover) if channel.takeover else ""
        if heard in sent:
            raise SettingsError(
                "takeover: expected a topic on which this node sends nothing, got "
                f"{channel.takeover!r}, which is {heard}, and so is the command {sent[heard]!r}: "
                "the node would obey itself; name the joystick's topic in takeover_topic, or "
                "actions[].takeover of a robot file, or see what is remapped"
            )


class OperatorServices:
    """Offers ``~/rearm``, ``~/stop``, ``~/run`` and ``~/rollback``; hears people.

    Args:
        node: that offers them.
        closers: closes services, subscriptions and the timer.
        pilot: that is told.
        commands: channels that a person may take over.
        settings: topics, and how long what they say lasts.
        stop_now: sends the safe command at once, without waiting for a tick.
        roll_back: runs the policy before the present one, for a reason, and says what happens.

    Raises:
        SettingsError: for a takeover topic on which this node sends commands.
    """

    def __init__(
        self,
        node: Node,
        closers: ExitStack,
        pilot: Pilot,
        commands: CommandSet,
        settings: OperatorSettings,
        *,
        stop_now: Callable[[], None],
        roll_back: Callable[[str], str],
    ) -> None:
        check_takeover(commands, node.resolve_topic_name)
        self._node, self._pilot, self._commands = node, pilot, commands
        self._people, self._stop_now = pilot.interventions, stop_now
        self._roll_back = roll_back
        for name, callback in (
            ("~/rearm", self._on_rearm),
            ("~/stop", self._on_stop),
            ("~/run", self._on_run),
            ("~/rollback", self._on_rollback),
        ):
            closers.callback(node.destroy_service, node.create_service(Trigger, name, callback))
        for i, channel in enumerate(commands.channels):
            if channel.takeover:
                self._hear(
                    closers,
                    channel.command.message_class,
                    channel.takeover,
                    partial(self._on_takeover, i),
                    qos.sensor(),
                )
        self._emergency_topic = settings.emergency_stop_topic
        if self._emergency_topic:
            self._hear_emergency(closers)

    def _hear(
        self, closers: ExitStack, kind: type, topic: str, callback: Callable[[Any], None], how: Any
    ) -> None:
        """Subscribe without the warning that a publisher of another quality would cause."""
        heard = self._node.create_subscription(
            kind, topic, callback, how, event_callbacks=qos.quiet()
        )
        closers.callback(self._node.destroy_subscription, heard)

    def _hear_emergency(self, closers: ExitStack) -> None:
        """Hear every publisher, whatever quality it offers; what is heard twice does no harm.

        Best effort takes from each of them, reliable loses nothing, and latched hears that the
        button was pressed before this node began.
        """
        for how in (qos.sensor(depth=10), qos.sensor(depth=10, reliable=True), qos.latched()):
            self._hear(closers, Bool, self._emergency_topic, self._on_emergency, how)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(_PUBLISHERS_S, self._look_for_publishers, clock=steady)
        closers.callback(self._node.destroy_timer, timer)

    def _look_for_publishers(self) -> None:
        before = self._people.emergency.latched
        count = self._node.count_publishers(self._emergency_topic)
        self._people.emergency.on_publishers(count, time.monotonic_ns())
        if self._people.emergency.latched and not before:
            self._stop_now()

    def _on_emergency(self, msg: Bool) -> None:
        before = self._people.emergency.latched
        self._people.emergency.on_message(bool(msg.data), time.monotonic_ns())
        if msg.data and not before:
            self._stop_now()

    def _on_takeover(self, channel: int, msg: Any) -> None:
        try:
            if self._commands.action is None:
                raise SpecMismatch("there is no policy yet, whose card says what may be sent")
            value = self._commands.decode(channel, msg)
        except SpecMismatch as error:
            self._people.takeover.refused += 1
            self._node.get_logger().error(f"takeover: {error}", throttle_duration_sec=5.0)
            return
        self._people.takeover.on_command(channel, value, time.monotonic_ns())

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._people.emergency.on_service()
        self._stop_now()
        response.success, response.message = True, "stopped until ~/rearm is called"
        return response

    def _on_rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        latched = self._pilot.latched
        cause = self._pilot.rearm(time.monotonic_ns())
        response.success = cause is None
        if cause is not None:
            response.message = f"still {cause}: {reason_of(cause).text()}"
        else:
            response.message = f"was latched by {latched}" if latched else "was not latched"
        return response

    def _on_run(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        latched = self._pilot.latched
        if latched:
            response.success = False
            response.message = f"latched by {latched}: call ~/rearm first"
            return response
        run_s = self._people.run.start(time.monotonic_ns())
        response.success = True
        response.message = f"runs for {run_s:g} s" if run_s else "runs without end"
        return response

    def _on_rollback(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        text = self._roll_back("asked for by ~/rollback")
        response.success = bool(text)
        response.message = text or "no policy ran before this one: nothing to go back to"
        return response
