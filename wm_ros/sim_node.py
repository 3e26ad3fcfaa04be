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
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import AddRenderObservation
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import JointState

import sim
from wm_core.contract.errors import SettingsError
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, names_of, split_view
from wm_core.robot import RobotFile
from wm_ros import convert, qos
from wm_ros.commands import COMMANDS
from wm_ros.episodes import signal_message
from wm_ros.episodes.experience import Signal
from wm_ros.parameters import params
from wm_ros.parameters.changes import Changes, set_log_level
from wm_ros.process.run import run
from wm_ros.settings import SimSettings
from wm_ros.simulated.actions import TaskAction
from wm_ros.simulated.body import Body, FileBody, PlainBody

_ARM_NOW_NS = 1_000
_ALIVE_NS = 1_000_000_000  #: a policy that has answered no frame for so long is not waited for
_SIM_START_NS = 1_000_000_000
_STAMPS = 256  #: frames whose answers are known as such


def task_of(file: RobotFile | None) -> str:
    """Name the task that plays the robot of a file: that of the robot's name; seek without one.

    Raises:
        SettingsError: for a robot of another name.
    """
    if file is None:
        return "seek"
    name = file.robot.replace("-", "_")
    if name not in (*sim.TASKS, *sim.ROBOT_TASKS):
        known = ", ".join(sim.ROBOT_TASKS)
        raise SettingsError(
            f"no simulated robot is called {file.robot!r} (known: {known}): set the parameter "
            "task to a task that plays it"
        )
    return name


def make_task(
    name: str, image_size: int, proprio: bool, kwargs: str, *, any_inputs: bool = False
) -> gymnasium.Env[Any, Any]:
    """Make the task ``name`` of ``sim``, or another one of Gymnasium.

    Args:
        name: such as ``seek``, ``my_tasks:Door-v0`` or, as it is rendered, ``CartPole-v1@pixels``
            (``@both``: its vector becomes the joint states).
        image_size: height and width in pixels, for tasks of ``sim``.
        proprio: whether tasks of ``sim`` give their measurements.
        kwargs: JSON object of further arguments.
        any_inputs: whether it may have any observations, not only an image.

    Raises:
        SettingsError: for an unknown task or one without image, fitting action or frame rate.
    """
    bare, view = split_view(name)
    own: dict[str, Any] = {"render_mode": "rgb_array"} if view else {}
    if bare in sim.TASKS:
        own |= {"image_size": image_size, "proprio": proprio}
    elif bare in sim.ROBOT_TASKS:
        own |= {"image_size": image_size}
    try:
        env = gymnasium.make(bare, **own, **json.loads(kwargs))
        if view:
            only = view == "pixels"
            env = AddRenderObservation(env, only, render_key=IMAGE_KEY, obs_key=VECTOR_KEY)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise SettingsError(f"task {name!r} cannot be made: {error}") from error
    space = env.observation_space
    image = space.spaces.get("image") if isinstance(space, Dict) else space
    if not any_inputs and (not isinstance(image, Box) or len(image.shape) != 3):
        raise SettingsError(f"task {name!r}: expected observations with 'image', got {space}")
    TaskAction(env.action_space, env.metadata, name)
    if not env.metadata.get("render_fps"):
        raise SettingsError(f"task {name!r}: metadata['render_fps'] must say its agent steps/s")
    return env


def names_of_vectors(env: gymnasium.Env[Any, Any]) -> dict[str, tuple[str, ...]]:
    """Name the numbers that a task measures, by observation; () where it does not name them."""
    space = env.observation_space
    found = {}
    for key, kind in (space.spaces if isinstance(space, Dict) else {}).items():
        if isinstance(kind, Box) and np.issubdtype(kind.dtype, np.floating):
            names, size = names_of(env.metadata, key), int(np.prod(kind.shape))
            found[key] = names if len(names) == size else ()
    return found


class SimNode(Node):
    """Publishes what its robot observes, ``reward`` and ``/clock``; obeys the robot's commands.

    Parameters: ``wm_ros.settings.SimSettings``.  With ``robot_file`` it is the robot of that file;
    else it has ``image_raw``, ``joint_states`` and the command of ``command_type``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim", **kwargs)
        params.declare(self, params.SIM)
        s = self._settings = params.read(self, SimSettings)
        set_log_level(self, s.log_level)
        Changes(self, params.SIM, SimSettings, apply=lambda s: set_log_level(self, s.log_level))
        file = RobotFile.load(s.robot_file) if s.robot_file else None
        task = s.task or task_of(file)
        self._env = make_task(task, s.image_size, s.proprio, s.task_kwargs, any_inputs=bool(file))
        self._takes = TaskAction(self._env.action_space, self._env.metadata, task)
        self._body = self._plain(task) if file is None else self._of_file(file, task)
        self._stopped = self._takes.home
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
        self._answered = [False] * len(self._body.limbs)  # which answered the last frame
        self._answer = self._stopped.copy()  # (A,) their answers
        self._last = self._stopped.copy()  # (A,) whatever came last
        self._last_ns = self._answered_ns = -(10**18)  # steady time of the last one, long ago
        self._over = True
        self._seed: int | None = s.seed
        self.frames = self.unanswered = 0
        self._open_topics()

    def _plain(self, task: str) -> Body:
        """Make the body that the parameters describe."""
        s = self._settings
        command = COMMANDS[s.command_type](s.twist_fields)
        size = self._takes.low.size
        command.check(size, discrete=self._takes.discrete, what=f"task {task!r}")
        return PlainBody(
            self,
            command,
            size,
            names=names_of_vectors(self._env),
            frame_id=s.frame_id,
            on_command=self._on_command,
        )

    def _of_file(self, file: RobotFile, task: str) -> Body:
        """Make the body that a robot file describes."""
        s, space = self._settings, self._env.observation_space
        body = FileBody(self, file, frame_id=s.frame_id, on_command=self._on_command)
        spaces = space.spaces if isinstance(space, Dict) else {IMAGE_KEY: space}
        fps = float(self._env.metadata["render_fps"])
        body.check(spaces, self._takes.low.size, fps, task)
        return body

    def _open_topics(self) -> None:
        self._reward = self.create_publisher(JointState, "reward", qos.signals())
        self._clock_out = (
            self.create_publisher(ClockMsg, "/clock", 10) if self._simulated else None
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

    def _on_command(self, i: int, value: np.ndarray | None, stamp_ns: int) -> None:
        """Remember a command; one that answers the present frame is what its period runs under."""
        limb = self._body.limbs[i]
        self._last[limb.part] = self._stopped[limb.part] if value is None else value
        self._last_ns = time.monotonic_ns()
        # Without stamps whatever comes counts as the answer.  Of messages that have one only the
        # stamp of a frame does: a safe action chosen without any has one of its own, and so has
        # what a joystick sends.  These are obeyed, but answer nothing.
        stamped = limb.command.stamped
        if value is None or (stamped and stamp_ns not in self._stamps):
            return
        self._answered_ns = self._last_ns  # be it an older frame: a slow policy is waited for
        if stamp_ns == self._stamp_ns or not stamped:
            self._answered[i], self._answer[limb.part] = True, value
            if all(self._answered) and self._last_ns >= self._due_ns:
                self._arm(self._last_ns)

    def _on_timer(self) -> None:
        now = time.monotonic_ns()
        waits = not all(self._answered) and now - self._answered_ns < _ALIVE_NS
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
        answered = all(self._answered)
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
        self._answered, self._stamp_ns = [False] * len(self._answered), stamp_ns
        self._stamps.append(stamp_ns)
        self._publish(obs, signal)

    def _action(self, now_ns: int) -> Any:
        """Choose the element of the task's action space for the coming period."""
        answered = all(self._answered)
        if not answered and now_ns - self._last_ns > self._silence_ns:
            for limb in self._body.limbs:
                if limb.rests_at_zero:
                    self._last[limb.part] = self._stopped[limb.part]
        return self._takes.element(self._answer if answered else self._last)

    def _publish(self, observed: Any, signal: Signal) -> None:
        """Publish an observation last, so that what belongs to it is ahead."""
        obs = observed if isinstance(observed, dict) else {IMAGE_KEY: observed}
        if self._clock_out is not None:
            clock = ClockMsg()
            convert.set_time(clock.clock, signal.stamp_ns)
            self._clock_out.publish(clock)
        self._reward.publish(signal_message.from_signal(signal))
        self._body.publish(obs, signal.stamp_ns)
        self.frames += 1


def main(argv: list[str] | None = None) -> int:
    """Run the node until a signal ends it; the exit code."""
    return run(SimNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
