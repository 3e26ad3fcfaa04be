"""The launch files by ROS's own launch system, wherever it is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

# Never "launch": in the root of the repository that is our own folder, an empty namespace.
pytest.importorskip("launch_ros", reason="needs ROS's launch system")
pytestmark = pytest.mark.ros

FOLDER = Path(__file__).parents[2] / "launch"
DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument as Declare, IncludeLaunchDescription as Include
from launch.actions import OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource as Source

DEFAULTS = {DEFAULTS}
NESTED = {NESTED!r}


def note(context):
    with open(__file__ + ".got", "w") as file:
        file.write(repr({n: context.launch_configurations.get(n) for n in sorted(DEFAULTS)}))


def generate_launch_description():
    nested = [Include(Source(NESTED))] if NESTED else []
    declared = [Declare(n, default_value=d) for n, d in DEFAULTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=note), *nested])
"""
#: what a vendor's launch file declares, in names of ours too
VENDOR = {
    "params_file": "driver.yaml",
    "robot": "ur5e",
    "port": "usb0",
    "namespace": "camera",
    "log_level": "warn",
    "use_sim_time": "sim",
    "remap": "x:=y",
}


def write_driver(path: Path, defaults: dict[str, str], nested: str = "") -> Path:
    text = DRIVER.replace("{DEFAULTS}", repr(defaults)).replace("{NESTED!r}", repr(nested))
    path.write_text(text)
    return path


def got_by(driver: Path) -> dict[str, str]:
    return ast.literal_eval(driver.with_name(f"{driver.name}.got").read_text())


def visit_all(entities, context) -> None:
    for entity in entities or ():
        visit_all(entity.visit(context), context)


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["robot_launch", "sim_launch"])
def test_the_description_declares_its_arguments(name):
    module = load(name)
    declared = {a.name: a for a in module.generate_launch_description().get_launch_arguments()}
    assert {argument for argument, _, _ in module.ARGUMENTS} <= declared.keys()
    assert all(a.description for a in declared.values())


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Runs robot_launch's actions with arguments, and gives its context and what it starts."""
    from launch import LaunchContext
    from launch_ros.substitutions import FindPackageShare

    monkeypatch.setattr(FindPackageShare, "perform", lambda self, context: str(tmp_path))
    module = load("robot_launch")

    def run(**given):
        context = LaunchContext()
        defaults = {
            name: d if isinstance(d, str) else "wm_ros.yaml" for name, d, _ in module.ARGUMENTS
        }
        context.launch_configurations.update({**defaults, **given})
        node, *driver = module._actions(context)
        visit_all(driver, context)
        return context, node

    return run


def test_a_driver_gets_its_own_defaults_where_its_arguments_have_the_names_of_ours(
    launched, tmp_path
):
    driver = write_driver(tmp_path / "driver.launch.py", VENDOR)
    context, _ = launched(driver_launch=str(driver), robot="robot1", params_file="ours.yaml")
    assert got_by(driver) == VENDOR
    configurations = context.launch_configurations
    assert (configurations["robot"], configurations["params_file"]) == ("robot1", "ours.yaml")
    assert configurations["namespace"] == ""
    assert configurations["port"] == "usb0"  # for actions of the driver that run later


def test_a_driver_shares_namespace_clock_and_log_level_that_were_set(launched, tmp_path):
    driver = write_driver(tmp_path / "driver.launch.py", VENDOR)
    given = {"namespace": "/robot1", "use_sim_time": "true", "log_level": "debug", "port": "usb3"}
    launched(driver_launch=str(driver), **given)
    assert got_by(driver) == {**VENDOR, **given}


def test_launch_files_that_the_driver_includes_get_their_own_defaults_too(launched, tmp_path):
    inner = write_driver(tmp_path / "camera.launch.py", {"params_file": "camera.yaml"})
    driver = write_driver(tmp_path / "driver.launch.py", {"robot": "ur5e"}, nested=str(inner))
    launched(driver_launch=str(driver), params_file="ours.yaml", robot="robot1")
    assert got_by(driver) == {"robot": "ur5e"}
    assert got_by(inner) == {"params_file": "camera.yaml"}


def test_two_robots_launched_by_one_file_do_not_inherit_from_each_others_drivers(
    launched, tmp_path
):
    driver = write_driver(tmp_path / "driver.launch.py", VENDOR)
    context, _ = launched(driver_launch=str(driver), params_file="ours.yaml")
    module = load("robot_launch")
    context.launch_configurations["namespace"] = "/robot2"
    visit_all(module._actions(context)[1:], context)
    assert got_by(driver)["params_file"] == "driver.yaml"
    assert context.launch_configurations["params_file"] == "ours.yaml"


def test_topics_are_given_at_launch(launched):
    from launch.utilities import perform_substitutions

    context, node = launched(camera_topic="/camera/image_raw", remap="cmd_vel:=base/cmd_vel")
    names = [
        tuple(perform_substitutions(context, part) for part in rule)
        for rule in node._Node__remappings
    ]
    assert names == [("image_raw", "/camera/image_raw"), ("cmd_vel", "base/cmd_vel")]


def test_a_driver_that_cannot_be_loaded_ends_the_launch_before_the_node_starts(
    tmp_path, monkeypatch
):
    """Launch ends on such an error without ending the nodes that it has started."""
    from launch import LaunchContext
    from launch.invalid_launch_file_error import InvalidLaunchFileError

    from wm_core.contract.errors import SettingsError

    driver = tmp_path / "driver.launch.py"
    driver.write_text("def generate_launch_description(: pass")
    module, context = load("robot_launch"), LaunchContext()
    monkeypatch.setattr(module.SHARE, "perform", lambda context: str(tmp_path))
    context.launch_configurations.update({name: "" for name, _, _ in module.ARGUMENTS})
    for path, kind in ((driver, InvalidLaunchFileError), (tmp_path / "missing.py", SettingsError)):
        context.launch_configurations["driver_launch"] = str(path)
        with pytest.raises(kind):
            module._actions(context)


@pytest.mark.parametrize(
    "robot",
    [
        (),
        ("task:=seek_discrete", "command_type:=index"),
        ("camera_topic:=/camera/image_raw", "remap:=cmd_vel:=base/cmd_vel"),
        ("robot_file:=diff_drive",),
        ("robot_file:=planar_arm",),
        ("robot_file:=walker",),
    ],
)
def test_sim_launch_brings_up_both_nodes_without_a_trainer_and_ends_cleanly(
    tmp_path, robot, ros_domains
):
    """Needs an installed package: `colcon build` and a sourced install/setup."""
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        get_package_share_directory("wm_ros")
    except PackageNotFoundError:
        pytest.skip("wm_ros is not built: `colcon build`, then source install/setup.bash")
    state = tmp_path / "state"
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": str(ros_domains[-1]),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }
    argv = ["ros2", "launch", "wm_ros", "sim_launch.py", f"state_dir:={state}", "namespace:=r1"]
    argv += robot
    process = subprocess.Popen(argv, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while '"no_policy": ' not in _read(state / "ticks.json"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
