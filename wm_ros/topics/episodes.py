"""Hears rewards and what ends an episode, offers to start and end one, and calls the reset."""

from __future__ import annotations

import importlib
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from wm_core.contract.errors import SpecMismatch
from wm_ros import qos
from wm_ros.episodes import signal_message
from wm_ros.episodes.judge import Judge
from wm_ros.episodes.readings import Reading
from wm_ros.sensors.unheard import Unheard, why_unheard
from wm_ros.topics.sensors import (
    WaitingGroup,
    take_waiting,
    talkers,
    topics_alike,
)

_VALUES_KEPT = 200  #: messages of a number that wait for a tick


class EpisodeTopics:
    """Subscribes rewards, numbers and flags; offers ``~/episode/start``, ``end`` and ``fail``.

    Args:
        node: that hears and offers them.
        closers: closes what is opened.
        judge: which judges by them.
    """

    def __init__(self, node: Node, closers: ExitStack, judge: Judge) -> None:
        self._node, self._closers, self._judge = node, closers, judge
        self._waiting = WaitingGroup()
        self._logger, rules = node.get_logger(), judge.episodes.rules
        if judge.reward.topic is not None:
            self._hear(JointState, judge.reward.topic, self._on_signal, qos.signals())
        for reading in judge.readings.values():
            self._read(reading)
        for topic, act in (
            (rules.start_topic, self._start),
            (rules.end_topic, partial(self._end, False)),
            (rules.fail_topic, partial(self._end, True)),
        ):
            if topic is not None:
                self._hear(Bool, topic, partial(self._on_flag, act, topic), qos.sensor(depth=10))
        for name, act in (
            ("start", self._start),
            ("end", partial(self._end, False)),
            ("fail", partial(self._end, True)),
        ):
            answer = partial(self._on_call, act, f"~/episode/{name}")
            service = node.create_service(Trigger, f"~/episode/{name}", answer)
            closers.callback(node.destroy_service, service)
        timer = node.create_timer(
            1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        closers.callback(node.destroy_timer, timer)
        self._pending: Any = None
        if rules.reset is not None:
            package, kind = rules.reset.type.split("/")
            self._reset_class = getattr(importlib.import_module(f"{package}.srv"), kind)
            self._client = node.create_client(self._reset_class, rules.reset.service)
            closers.callback(node.destroy_client, self._client)
            judge.episodes.call_reset = self._call_reset

    def _hear(self, kind: Any, topic: str, callback: Any, profile: Any) -> None:
        heard = self._node.create_subscription(kind, topic, callback, profile)
        self._closers.callback(self._node.destroy_subscription, heard)

    # --------------------------------------------------------------------------------- rewards

    def _on_signal(self, msg: JointState) -> None:
        try:
            self._judge.put(signal_message.to_signal(msg))
        except SpecMismatch as error:
            self._judge.counts["signals_refused"] += 1
            self._logger.error(str(error), throttle_duration_sec=5.0)

    def _read(self, reading: Reading) -> None:
        """Subscribe a number; its messages wait until a tick takes them and wake nobody."""
        node, profile = self._node, qos.sensor(depth=_VALUES_KEPT)
        heard = node.create_subscription(
            reading.message_class,
            reading.topic,
            lambda msg: None,
            profile,
            callback_group=self._waiting,
            event_callbacks=qos.quiet(),
        )
        self._closers.callback(node.destroy_subscription, heard)
        reading.topic = heard.topic_name
        reading.ros_now = lambda: node.get_clock().now().nanoseconds
        reading.take = partial(take_waiting, heard)
        self._closers.callback(setattr, reading, "take", tuple)

    def _on_timer(self) -> None:
        for reading in self._judge.readings.values():
            reading.drain()
        silent = [reading for reading in self._judge.readings.values() if not reading.messages]
        self._judge.unheard = "; ".join(map(self._why_unheard, silent))
        problem = self._judge.unheard or self._judge.problem
        if problem:
            text = f"steps are not stored, or without reward: {problem}"
            self._logger.warning(text, throttle_duration_sec=30.0)

    def _why_unheard(self, reading: Reading) -> str:
        publishers = talkers(self._node, reading.topic)
        alike = topics_alike(self._node, reading.message, reading.topic)
        known = Unheard(reading.topic, reading.message, publishers=publishers, alike=alike)
        return f"{reading.name}: {why_unheard(known)}"

    # -------------------------------------------------------------------------- start and end

    def _start(self, why: str) -> str | None:
        return self._judge.episodes.ask_start()

    def _end(self, terminal: bool, why: str) -> str | None:
        now_ns = time.monotonic_ns()
        return self._judge.episodes.ask_end(now_ns, terminal=terminal, why=why)

    def _on_call(
        self, act: Any, name: str, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        refused = act(name)
        response.success, response.message = refused is None, refused or "with the next tick"
        return response

    def _on_flag(self, act: Any, topic: str, msg: Bool) -> None:
        if msg.data and (refused := act(topic)):
            self._logger.info(f"{topic}: {refused}", throttle_duration_sec=5.0)

    # ----------------------------------------------------------------------------------- reset

    def _call_reset(self) -> bool:
        """Call the reset service without waiting for it; False where it is not there."""
        if not self._client.service_is_ready():
            return False
        self._pending = self._client.call_async(self._reset_class.Request())
        self._pending.add_done_callback(self._on_reset)
        return True

    def _on_reset(self, future: Any) -> None:
        if future is not self._pending:
            return  # the answer to a call of an earlier episode
        self._pending = None
        if future.exception() is not None:
            problem = f"the reset failed: {future.exception()}"
        else:
            answer = future.result()
            refused = not getattr(answer, "success", True)
            problem = f"the reset failed: {answer.message or 'no reason given'}" if refused else ""
        self._judge.episodes.on_reset(problem)
        if problem:
            self._logger.error(f"{problem}; put the robot back and call ~/episode/start")
