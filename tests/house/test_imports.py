"""Who may import whom, by the import graph and by really running without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
#: the one list of what runs on a robot
ROBOT = next(c["source_modules"] for c in CONTRACTS if c.get("id") == "robot")
#: a robot's stand-in and what it alone imports have the simulator instead
SIMULATED = {"wm_ros.sim_node", "wm_ros.simulated.actions"}


def robot_side(*, with_ros):
    """Names of every module that a robot imports; wm_ros's own where rclpy is there."""
    for package in ROBOT:
        for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if name not in SIMULATED and (with_ros or package != "wm_ros"):
                yield name.removesuffix(".__init__")


def import_all(python, modules, *, blocked):
    """Import ``modules`` in a fresh ``python`` in which ``blocked`` cannot be imported."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "assert sys.modules.get('torch') is None\n"
    )
    # A venv with ROS wheels restarts its Python with variables that belong to that venv only.
    own = {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    env = {key: value for key, value in os.environ.items() if key not in own}
    if "AMENT_PREFIX_PATH" in os.environ and "LD_LIBRARY_PATH" in os.environ:
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return subprocess.run(
        [python, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )


def test_every_import_keeps_the_contracts_of_the_design():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_robot_side_without_ros_is_imported_without_torch():
    modules = list(robot_side(with_ros=False))
    assert "wm_core.contract.runner" in modules
    done = import_all(sys.executable, modules, blocked=["torch", "rclpy"])
    assert done.returncode == 0, done.stderr


@pytest.mark.ros
def test_the_whole_robot_side_is_imported_without_torch_and_simulator():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    blocked = ["torch", "mujoco", "dm_control", "gymnasium", "starlette", "uvicorn", "onnx"]
    done = import_all(sys.executable, list(robot_side(with_ros=True)), blocked=blocked)
    assert done.returncode == 0, done.stderr


@pytest.mark.ros
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.14"])
def test_the_robot_side_is_imported_by_the_pythons_that_robots_have(version):
    python = ROOT / f".venv-robot-{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no Python {version} here (make robot-setup)")
    done = import_all(str(python), list(robot_side(with_ros=True)), blocked=["torch"])
    assert done.returncode == 0, done.stderr


def test_every_room_that_is_not_the_robots_is_forbidden_to_it():
    rooms = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in (ROOT / "wm_core").glob("[a-z]*")
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    rooms |= {"wm_core.link.robot", "wm_core.link.trainer", "wm_core.link.audit"}
    forbidden = next(c["forbidden_modules"] for c in CONTRACTS if c.get("id") == "robot-rooms")
    assert set(forbidden) == rooms - set(ROBOT) - {"wm_core.link"}
