"""``ros2 run wm_ros doctor``, ``wm doctor``: says before a robot runs what there is to mend.

It takes the very parameters of the policy node (``--ros-args --params-file robot.yaml``) and asks
what the node would find: versions, files, topics, rates, clocks, the trainer.  Exit code 0:
nothing FAILs; 1: something does; 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier, remove_ros_args

from wm_core.contract.errors import WmError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_ros.commands.build import commands_of
from wm_ros.doctor import graph, machine
from wm_ros.doctor.findings import CheckResult, as_json, as_text, fail, ok, warn
from wm_ros.parameters import params
from wm_ros.parameters.given import unused_files
from wm_ros.robot import Robot
from wm_ros.sensors.table import Sensors

_IDLE_NS = 50_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Examine the robot; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        asked = _parser().parse_args(remove_ros_args(["doctor", *args])[1:])
    except SystemExit as stop:
        return int(stop.code or 0)
    given = [part for name in _NAMED for part in _as_parameter(name, getattr(asked, name))]
    if asked.namespace:
        given += ["-r", f"__ns:={asked.namespace}"]
    ros_args = ["doctor", *args, *(["--ros-args", *given] if given else [])]
    try:
        rclpy.init(args=ros_args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        sys.stderr.write(f"doctor: {error}\n")
        return 2
    try:
        findings = examine(asked.seconds, asked.node)
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    sys.stdout.write(as_json(findings) if asked.json else as_text(findings))
    return int(any(f.level == "FAIL" for f in findings))


#: options that are parameters of the policy node
_NAMED = {
    "robot_file": "file that describes the robot",
    "policy_dir": "folder of the policy that it should run",
    "trainer_url": "address of the trainer",
    "token_file": "file with this robot's token",
    "ca_file": "file of the certificates that the trainer's must be signed by",
    "state_dir": "folder of the node's files",
}


_MORE = """\
examples:
  wm doctor --robot-file robot.yaml
  wm doctor --policy-dir policy --json

Parameters as for the policy node: --ros-args --params-file robot.yaml -p ...
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Say before a robot runs what there is to mend.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in _NAMED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, default="")
    parser.add_argument("--namespace", default="", help="of the robot, such as /robot1")
    parser.add_argument("--node", default="policy", help="name of the policy node")
    parser.add_argument("--seconds", type=float, default=3.0, help="to listen to the topics")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _as_parameter(name: str, value: str) -> list[str]:
    return ["-p", f"{name}:='{value}'"] if value else []


def examine(seconds: float, name: str) -> list[CheckResult]:
    """Examine everything.

    Args:
        seconds: to listen to the topics.
        name: of the policy node, whose parameters and files are meant.
    """
    rmw = get_rmw_implementation_identifier()
    found = machine.versions(rmw)
    node = Node("doctor", parameter_overrides=_overrides(name))
    try:
        params.declare(node, params.POLICY)
        robot = params.read_robot(node)
    except WmError as error:
        node.destroy_node()
        return [*found, fail("parameters", str(error), "mend the parameter or the robot file")]
    meant = f"{node.get_namespace().rstrip('/')}/{name}"
    advice = "see which node each section names"
    found += [warn("parameters", text, advice) for text in unused_files(sys.argv, meant)]
    s = robot.settings
    found.append(ok("robot", f"{s.robot}, by {s.robot_file or 'the parameters'}"))
    of_policy, runner = machine.policy(s)
    found += of_policy
    found += machine.disk(s, node.get_namespace(), name)
    found += machine.trainer(s)
    found += machine.keys(s)
    found += _graph(node, robot, runner, seconds, name, rmw)
    node.destroy_node()
    return found


def _overrides(name: str) -> list[Parameter]:
    """Read the parameters that a file gives to the node of this name, and not to the doctor."""
    meant = Node(name, start_parameter_services=False, enable_rosout=False)
    found = list(meant._parameter_overrides.values())
    meant.destroy_node()
    return found


def _graph(
    node: Node, robot: Robot, runner: PolicyRunner | None, seconds: float, name: str, rmw: str
) -> list[CheckResult]:
    """Examine what needs the graph of nodes."""
    s, found = robot.settings, []
    try:
        commands = commands_of(robot)
        spec = _spec(robot, runner)
        if runner is not None:
            robot.check(runner.spec)
            commands.check(runner.spec.action)
    except WmError as error:
        found.append(fail("policy", str(error), "take a policy that was trained for this robot"))
        spec = None
    period_ns = round(spec.period_s * 1e9) if spec is not None else _IDLE_NS
    sensors = (
        Sensors.of_parameters(robot.sensors, period_ns)
        if robot.file is None
        else Sensors.of_file(robot.file, period_ns)
    )
    listener = graph.Listener(node, sensors, reliable=s.image_reliability == "reliable")
    listener.listen(seconds)
    use_sim_time = bool(node.get_parameter("use_sim_time").value)
    found += graph.clock(node, use_sim_time)
    found += graph.sensors_of(listener, spec)
    found += machine.profile(rmw, listener.largest_image)
    runs = (name, node.get_namespace()) in node.get_node_names_and_namespaces()
    found += graph.commands_of_graph(node, commands, runs)
    listener.close()
    return found


def _spec(robot: Robot, runner: PolicyRunner | None) -> Spec | None:
    """Give what a policy reads and writes: the policy's own, or by the robot file."""
    if runner is not None:
        return runner.spec
    if robot.file is None or robot.file.rate_hz is None:
        return None
    return robot.file.spec()


if __name__ == "__main__":
    raise SystemExit(main())
