"""Parameters of running nodes: refused by one line at the start, applied or refused later."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros
from wm_ros.parameters import params  # noqa: E402

ROOT = Path(__file__).parents[2]

WRONG = {
    "robot: 7": "parameter 'robot': expected text, got 7",
    "frozen_frames: 5000": "from 0 to 1000, got 5000",
    "polcy_dir: x": "did you mean 'policy_dir'?",
    "sensors: [image, 1]": "Sequence should be of same type",
    "seed: [": "parameter file",
}


@pytest.fixture
def start(processes, tmp_path):
    """Runs a node with one line of parameters and other arguments until it ends."""

    def run(line: str, *more: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "robot.yaml"
        file.write_text(f"/**:\n  ros__parameters:\n    {line}\n")
        argv = [sys.executable, "-m", "wm_ros.policy_node", "--ros-args", "-r", "__ns:=/robot1"]
        return subprocess.run(
            [*argv, "--params-file", str(file), *more],
            env=processes.env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_parameter_ends_the_node_by_one_line_that_names_it(start, line, tmp_path):
    done = start(line)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert WRONG[line] in text
    assert "Traceback" not in text
    if "parameter '" in text:
        assert f"in {tmp_path / 'robot.yaml'}, line 3" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("-p", "safe_action:=off"), "got false (YAML reads on, off, yes, no, true and false"),
        (("--params-file", "missing.yaml"), "missing.yaml"),
        (("--bogus",), "--bogus"),
    ],
)
def test_a_wrong_argument_ends_the_node_by_one_line(start, more, said):
    done = start("seed: 1", *more)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert said in text
    assert "Traceback" not in text


class Remote:
    """Sets and gets parameters of a node as ``ros2 param`` does."""

    def __init__(self, watcher, node: str) -> None:
        from rcl_interfaces.srv import GetParameters, SetParameters

        self._watcher = watcher
        self._clients = {
            kind: watcher.node.create_client(kind, f"{node}/{name}")
            for kind, name in (
                (SetParameters, "set_parameters"),
                (GetParameters, "get_parameters"),
            )
        }

    def _call(self, kind, request):
        """Ask again where an answer is lost, as the first one to a new client may be."""
        client = self._clients[kind]
        self._watcher.until(client.service_is_ready, kind.__name__)
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered() -> bool:
            nonlocal asked
            if time.monotonic() > asked + 5.0:
                asked = time.monotonic()
                futures.append(client.call_async(request))
            return any(future.done() for future in futures)

        self._watcher.until(answered, kind.__name__)
        return next(future.result() for future in futures if future.done())

    def set(self, **values):
        """(successful, reason) of each, in order."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(
            parameters=[
                Parameter(name.replace("__", "."), value=value).to_parameter_msg()
                for name, value in values.items()
            ]
        )
        answer = self._call(SetParameters, request)
        return [(result.successful, result.reason) for result in answer.results]

    def get(self, name: str):
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        answer = self._call(GetParameters, GetParameters.Request(names=[name]))
        return parameter_value_to_python(answer.values[0])


def another(param):
    """A value that ``param`` may have and does not have by default."""
    default = param.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, (int, float)):
        near = default + type(default)(1)
        return near if near <= param.high else type(default)(param.low)
    if isinstance(default, list):
        return default[:1]
    others = [choice for choice in param.choices if choice != default]
    return others[0] if others else "other"


def test_every_parameter_is_applied_at_once_or_refused_as_read_only(
    processes, watcher, policy_at, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start(
        "policy_node", {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    )
    remote = Remote(watcher, "policy")
    names = [param.name for param in params.POLICY]
    before = {name: remote.get(name) for name in names}
    values = {param.name: another(param) for param in params.POLICY}
    results = dict(
        zip(names, remote.set(**{n.replace(".", "__"): values[n] for n in names}), strict=True)
    )
    assert sum(param.live for param in params.POLICY) > 8
    for param in params.POLICY:
        applied, reason = results[param.name]
        assert applied == param.live, (param.name, reason)
        shown = remote.get(param.name)
        assert shown == (values if param.live else before)[param.name], param.name
        if not param.live:
            assert "read-only" in reason
            assert repr(param.name) in reason
    for name in ("use_sim_time", "image.topic"):
        ((applied, reason),) = remote.set(
            **{name.replace(".", "__"): True if name == "use_sim_time" else "x"}
        )
        assert not applied
        assert "read-only" in reason
    assert processes.stop("policy_node") == 0


def test_a_wrong_value_is_refused_at_run_time_with_the_reason(
    processes, watcher, policy_at, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start(
        "policy_node", {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    )
    remote = Remote(watcher, "policy")
    for name, value, said in (
        ("safe_action", "foo", "unknown safe_action 'foo'; known: hold"),
        ("safe_action", 7, ""),
        ("frozen_frames", 5000, ""),
        ("max_gap_s", float("nan"), ""),
        ("no_such_parameter", 1, ""),
    ):
        ((applied, reason),) = remote.set(**{name: value})
        assert not applied, name
        assert said in reason
        assert reason
    if hasattr(watcher.node, "add_pre_set_parameters_callback"):
        assert remote.set(max_gap_s=1) == [(True, "")]
        assert remote.get("max_gap_s") == 1.0
    assert remote.get("safe_action") == "zero"


def test_a_refused_stop_leaves_the_one_before_in_force(watcher, policy_at, tmp_path):
    """Zeros would slam an arm, so they are refused; what the parts work by stays as it was."""
    from pathlib import Path

    from wm_core.contract.errors import WmError
    from wm_ros.assembly import Assembly
    from wm_ros.control_loop import Outside
    from wm_ros.robot import robot_of
    from wm_ros.settings import PolicySettings, SensorSettings

    settings = PolicySettings(command_type="joint_position", safe_action="hold", max_gap_s=0.5)
    outside = Outside(
        simulated=False,
        ros_now_ns=time.time_ns,
        publish=lambda decision: None,
        wake_at=lambda when_ns: None,
        say=lambda level, text: None,
        report_soon=lambda: None,
    )
    parts = Assembly(
        robot_of(settings, {"image": SensorSettings(type="camera")}), Path(tmp_path), outside
    )
    changed = settings.model_copy(update={"safe_action": "zero", "max_gap_s": 0.25})
    with pytest.raises(WmError, match="zero"):
        parts.use(changed)
    assert (parts.settings, parts.guard.settings) == (settings, settings)
    later = settings.model_copy(update={"max_gap_s": 0.25})
    parts.use(later)
    assert (parts.settings, parts.guard.settings) == (later, later)


def test_what_is_set_changes_what_the_running_node_does(processes, watcher, policy_at, tmp_path):
    """Exploration begins with the next tick; ``hold`` keeps the last speed when frames end."""
    from geometry_msgs.msg import TwistStamped

    commands = watcher.listen(TwistStamped, "cmd_vel")
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    processes.start(
        "policy_node", {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    )

    def speeds(n: int):
        return {round(m.twist.linear.x, 4) for m in commands[-n:]}

    watcher.until(lambda: len(commands) > 20 and speeds(20) == {0.625}, "the policy's speed")
    remote = Remote(watcher, "policy")
    assert remote.set(exploration_noise=0.5) == [(True, "")]
    watcher.until(lambda: len(speeds(20)) > 10, "exploration")
    assert remote.set(exploration_noise=0.0, frozen_frames=0) == [(True, "")] * 2
    watcher.until(lambda: speeds(20) == {0.625}, "the policy's speed again")
    assert remote.set(safe_action="hold") == [(True, "")]
    processes.stop("sim_node")
    heard = len(commands)
    watcher.until(lambda: len(commands) > heard + 20, "safe actions")
    assert speeds(20) == {0.625}
    assert remote.set(safe_action="zero") == [(True, "")]
    watcher.until(lambda: speeds(20) == {0.0}, "a stop")


def test_an_unconfigured_node_takes_what_it_will_read_when_it_is_configured(
    processes, watcher, policy_at, tmp_path
):
    from geometry_msgs.msg import Twist
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start(
        "policy_node",
        {"policy_dir": str(policy), "state_dir": str(tmp_path / "state"), "autostart": False},
    )
    remote = Remote(watcher, "policy")
    assert remote.set(command_type="twist") == [(True, "")]
    ((applied, reason),) = remote.set(autostart=True)
    assert not applied
    assert "read when the node starts" in reason
    commands = watcher.listen(Twist, "cmd_vel")
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=number))
        assert watcher.call(ChangeState, "policy/change_state", request).success
    watcher.until(lambda: commands, "a command of the type that was set")


def test_the_simulated_robot_refuses_changes_too(processes, watcher):
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    remote = Remote(watcher, "sim")
    for param in params.SIM:
        ((applied, reason),) = remote.set(**{param.name: another(param)})
        assert applied == param.live, (param.name, reason)
        assert applied or "read-only" in reason
