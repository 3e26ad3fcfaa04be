"""The launch files by ROS's own launch system, wherever it is installed."""

from __future__ import annotations

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
from launch.actions import DeclareLaunchArgument as Declare

DEFAULTS = {"params_file": "driver.yaml", "robot": "arm", "port": "usb0", "namespace": "driver"}


def generate_launch_description():
    return LaunchDescription([Declare(n, default_value=d) for n, d in DEFAULTS.items()])
"""


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


def test_the_driver_gets_its_own_defaults_where_its_arguments_have_the_names_of_ours(tmp_path):
    from launch import LaunchContext

    driver = tmp_path / "driver.launch.py"
    driver.write_text(DRIVER)
    module, context = load("robot_launch"), LaunchContext()
    ours = {name: f"our {name}" for name, _, _ in module.ARGUMENTS}
    given = ours | {"driver_launch": str(driver), "port": "usb3"}
    context.launch_configurations.update(given)

    def visit(entity):
        for inner in entity.visit(context) or ():
            visit(inner)

    for entity in module._actions(context)[1:]:  # without the node
        visit(entity)
    assert context.launch_configurations == {
        **given,  # its port, our namespace, and what the driver does not declare
        "params_file": "driver.yaml",
        "robot": "arm",
    }


def test_a_driver_that_cannot_be_loaded_ends_the_launch_before_the_node_starts(tmp_path):
    """Launch ends on such an error without ending the nodes that it has started."""
    from launch import LaunchContext
    from launch.invalid_launch_file_error import InvalidLaunchFileError

    driver = tmp_path / "driver.launch.py"
    driver.write_text("def generate_launch_description(: pass")
    module, context = load("robot_launch"), LaunchContext()
    context.launch_configurations.update({name: "" for name, _, _ in module.ARGUMENTS})
    for path in (driver, tmp_path / "missing.py"):
        context.launch_configurations["driver_launch"] = str(path)
        with pytest.raises(InvalidLaunchFileError):
            module._actions(context)


@pytest.mark.parametrize("robot", [(), ("task:=seek_discrete", "command_type:=index")])
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
