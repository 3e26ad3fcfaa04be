"""Presents a simulated task as a robot with camera, joints and reward that obeys commands.

The frame of period k is published, and at the start of period k + 1 the task advances by one
agent step under the command that answers that very frame (by its stamp), so that there is one
decision per frame to learn from.  Where no answer came in time the last command goes on, and the
reward's message says so; where no commands come the robot stops.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers import AddRenderObservation
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import Image, JointState

import sim
from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, split_view
from wm_ros import convert, params, qos
from wm_ros.changes import Changes, set_log_level
from wm_ros.commands import COMMANDS
from wm_ros.experience import Signal
from wm_ros.process import run
from wm_ros.sensors.camera import Camera, to_image
from wm_ros.sensors.joint_states import JointStates, from_vector
from wm_ros.settings import SimSettings

_ARM_NOW_NS = 1_000
_ALIVE_NS = 1_000_000_000  #: a policy that has answered no frame for so long is not waited for
_SIM_START_NS = 1_000_000_000
_STAMPS = 256  #: frames whose answers are known as such


def make_task(name: str, image_size: int, proprio: bool, kwargs: str) -> gymnasium.Env[Any, Any]:
    """Make the task ``name`` of ``sim``, or another one of Gymnasium.

    Args:
        name: such as ``seek``, ``my_tasks:Door-v0`` or, as it is rendered, ``CartPole-v1@pixels``
            (``@both``: its vector becomes the joint states).
        image_size: height and width in pixels, for tasks of ``sim``.
        proprio: whether tasks of ``sim`` give their measurements.
        kwargs: JSON object of further arguments.

    Raises:
        SettingsError: for an unknown task or one without image, fitting action or frame rate.
    """
    bare, view = split_view(name)
    own: dict[str, Any] = {"render_mode": "rgb_array"} if view else {}
    if bare in sim.TASKS:
        own |= {"image_size": image_size, "proprio": proprio}
    try:
        env = gymnasium.make(bare, **own, **json.loads(kwargs))
        if view:
            only = view == "pixels"
            env = AddRenderObservation(env, only, render_key=IMAGE_KEY, obs_key=VECTOR_KEY)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise SettingsError(f"task {name!r} cannot be made: {error}") from error
    space = env.observation_space
    image = space.spaces.get("image") if isinstance(space, Dict) else space
    if not isinstance(image, Box) or len(image.shape) != 3:
        raise SettingsError(f"task {name!r}: expected observations with 'image', got {space}")
    if not isinstance(env.action_space, Box | Discrete):
        raise SettingsError(f"task {name!r}: expected a Box or choices, got {env.action_space}")
    if not env.metadata.get("render_fps"):
        raise SettingsError(f"task {name!r}: metadata['render_fps'] must say its agent steps/s")
    return env


class SimNode(Node):
    """Publishes ``image_raw``, ``reward``, ``joint_states`` and ``/clock``; obeys a command.

    Parameters: ``wm_ros.settings.SimSettings``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim", **kwargs)
        params.declare(self, params.SIM)
        s = self._settings = params.read(self, SimSettings)
        set_log_level(self, s.log_level)
        Changes(self, params.SIM, SimSettings, apply=lambda s: set_log_level(self, s.log_level))
        self._env = make_task(s.task, s.image_size, s.proprio, s.task_kwargs)
        self._command = COMMANDS[s.command_type](s.twist_fields)
        space: Any = self._env.action_space
        discrete = isinstance(space, Discrete)
        if discrete:
            self._low, self._high = np.array([[0], [space.n - 1]], np.float32)
        else:
            self._low, self._high = space.low.astype(np.float32), space.high.astype(np.float32)
        self._command.check(self._low.size, discrete=discrete, what=f"task {s.task!r}")
        stop = self._env.metadata.get("action_noop", 0) if discrete else 0.0
        self._stopped = np.clip(np.full_like(self._low, stop), self._low, self._high)
        self._period_ns = round(1e9 / float(self._env.metadata["render_fps"]))
        self._wall_ns = max(1, round(self._period_ns / s.rate_factor))
        follows = bool(self.get_parameter("use_sim_time").value)
        self._simulated = s.rate_factor != 1.0 or s.publish_clock or follows
        self._answer_wait_ns = int(s.answer_wait_s * 1e9)
        if self._simulated and not self._answer_wait_ns:
            self._answer_wait_ns = _ALIVE_NS
        self._silence_ns = int(s.command_timeout_s * 1e9) or 2 * self._wall_ns
        self._wall_clock = Clock(clock_type=ClockType.SYSTEM_TIME)
        self._sim_ns = _SIM_START_NS
        self._stamp_ns = 0
        self._stamps: deque[int] = deque(maxlen=_STAMPS)  # of the latest frames
        self._answer: np.ndarray | None = None  # (A,) to the frame that was published last
        self._last: np.ndarray | None = None  # (A,) whatever came last
        self._last_ns = self._answered_ns = -(10**18)  # steady time of the last one, long ago
        self._over = True
        self._seed: int | None = s.seed
        self.frames = self.unanswered = 0
        self._open_topics()

    def _open_topics(self) -> None:
        self._image = self.create_publisher(Image, Camera.default_topic, qos.sensor(reliable=True))
        self._reward = self.create_publisher(JointState, "reward", qos.signals())
        self._joints = self.create_publisher(JointState, JointStates.default_topic, qos.signals())
        self._clock_out = (
            self.create_publisher(ClockMsg, "/clock", 10) if self._simulated else None
        )
        command = self._command
        self.create_subscription(
            command.message_class, command.topic, self._on_command, qos.command()
        )
        self._due_ns = time.monotonic_ns()
        # Steady: this node makes the simulated time, so it cannot wait for it.
        self._timer = self.create_timer(
            3600.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def begin(self) -> None:
        """Publish the first frame at once."""
        self._due_ns = time.monotonic_ns()
        self._arm(self._due_ns)

    def finish(self) -> None:
        """Free the simulator."""
        self._timer.cancel()
        self._env.close()

    def _arm(self, at_ns: int) -> None:
        self._timer.timer_period_ns = max(at_ns - time.monotonic_ns(), _ARM_NOW_NS)
        self._timer.reset()

    def _on_command(self, msg: Any) -> None:
        """Remember a command; one that answers the present frame is what its period runs under."""
        try:
            value, stamp_ns = self._command.decode(msg, self._low.size)
        except SpecMismatch as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        self._last = self._stopped if value is None else value
        self._last_ns = time.monotonic_ns()
        # Without stamps whatever comes counts as the answer.  Of messages that have one only the
        # stamp of a frame does: a safe action chosen without any has one of its own, and so has
        # what a joystick sends.  These are obeyed, but answer nothing.
        answers = not self._command.stamped or stamp_ns in self._stamps
        if value is None or not answers:
            return
        self._answered_ns = self._last_ns  # be it an older frame: a slow policy is waited for
        if stamp_ns == self._stamp_ns or not self._command.stamped:
            self._answer = value
            if self._last_ns >= self._due_ns:
                self._arm(self._last_ns)

    def _on_timer(self) -> None:
        now = time.monotonic_ns()
        waits = self._answer is None and now - self._answered_ns < _ALIVE_NS
        if now < self._due_ns:
            self._arm(self._due_ns)
        elif waits and now < self._due_ns + self._answer_wait_ns:
            self._arm(self._due_ns + self._answer_wait_ns)
        else:
            if self._simulated:
                self._due_ns = max(self._due_ns, now - self._wall_ns)
            else:
                self._due_ns += (now - self._due_ns) // self._wall_ns * self._wall_ns
            self._due_ns += self._wall_ns
            self._advance(now)
            self._arm(self._due_ns)

    def _advance(self, now_ns: int) -> None:
        """Take one agent step, or reset where the episode was over, and publish the result."""
        stamp_ns = self._sim_ns if self._simulated else self._wall_clock.now().nanoseconds
        self._sim_ns += self._period_ns
        answered = self._answer is not None
        self.unanswered += not answered
        if self._over:
            obs, _ = self._env.reset(seed=self._seed)
            self._seed = None
            signal = Signal(stamp_ns, 0.0, True, False, False, answered)
            self._over = False
        else:
            obs, reward, terminated, truncated, _ = self._env.step(self._action(now_ns))
            self._over = terminated or truncated
            signal = Signal(stamp_ns, float(reward), False, self._over, terminated, answered)
        self._answer, self._stamp_ns = None, stamp_ns
        self._stamps.append(stamp_ns)
        self._publish(obs, signal)

    def _action(self, now_ns: int) -> Any:
        """Choose the action (A,) of the coming period in the task's units, or the choice."""
        command = self._stopped
        if self._answer is not None:
            command = self._answer
        elif self._last is not None and now_ns - self._last_ns <= self._silence_ns:
            command = self._last
        command = np.clip(command, self._low, self._high)
        if isinstance(self._env.action_space, Discrete):
            return int(self._env.action_space.start) + round(float(command[0]))
        return command

    def _publish(self, observed: Any, signal: Signal) -> None:
        """Publish an observation, the frame last, so that what belongs to it is ahead."""
        obs = observed if isinstance(observed, dict) else {"image": observed}
        if self._clock_out is not None:
            clock = ClockMsg()
            convert.set_time(clock.clock, signal.stamp_ns)
            self._clock_out.publish(clock)
        measured = obs.get("proprio", obs.get(VECTOR_KEY))
        if measured is not None:
            vector = np.ravel(measured)
            names = self._env.metadata.get("proprio_names", ())
            if len(names) != vector.size:
                names = [f"proprio_{i}" for i in range(vector.size)]
            self._joints.publish(from_vector(vector, signal.stamp_ns, names))
        self._reward.publish(convert.from_signal(signal))
        self._image.publish(to_image(obs["image"], signal.stamp_ns, self._settings.frame_id))
        self.frames += 1


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run(SimNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
