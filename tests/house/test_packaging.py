"""What pip and colcon install: every name leads somewhere, and what is installed runs."""

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import setuptools
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup_arguments():
    """The keyword arguments of the one call of ``setup`` in setup.py."""
    got = {}
    before, setuptools.setup = setuptools.setup, lambda **kwargs: got.update(kwargs)
    folder = Path.cwd()
    try:
        os.chdir(ROOT)
        exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {"__name__": "setup"})
    finally:
        setuptools.setup = before
        os.chdir(folder)
    return got


def test_every_executable_names_a_function_that_exists(setup_arguments):
    for line in setup_arguments["entry_points"]["console_scripts"]:
        module, function = line.split("=")[1].strip().split(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        names = [n.name for n in ast.parse(source.read_text()).body if hasattr(n, "name")]
        assert function in names, line


def test_exactly_the_packages_of_this_project_are_installed(setup_arguments):
    tops = {name.split(".")[0] for name in setup_arguments["packages"]}
    assert tops == {"wm_ros", "wm_core", "sim"}
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in tops
        for path in (ROOT / top).rglob("*.py")
    }
    assert on_disk == set(setup_arguments["packages"]), "a folder of sources lacks __init__.py"


def test_everything_that_launch_needs_is_installed(setup_arguments):
    installed = {name for _, names in setup_arguments["data_files"] for name in names}
    for name in installed:
        assert (ROOT / name).is_file(), name
    beside = {str(p.relative_to(ROOT)) for p in (ROOT / "launch").rglob("*") if p.is_file()}
    assert {name for name in beside if "__pycache__" not in name} <= installed


def test_launch_is_no_package_so_that_ros_keeps_its_own():
    assert not list((ROOT / "launch").rglob("__init__.py"))


def test_the_manifest_and_setup_name_the_same_package(setup_arguments):
    manifest = ET.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("name") == setup_arguments["name"]
    assert manifest.findtext("version") == setup_arguments["version"]
    assert manifest.findtext("license") == setup_arguments["license"]
    assert manifest.findtext("export/build_type") == "ament_python"


def test_a_robot_installs_neither_torch_nor_ros_wheels(setup_arguments):
    extras = setup_arguments["extras_require"]
    asked = [*setup_arguments["install_requires"], *extras["robot"]]
    assert not [name for name in asked if name.startswith(("torch", "ros-", "mujoco"))]


def test_torch_is_one_whose_autocast_keeps_gradients(setup_arguments):
    """Before 2.11 a weight that was first read without gradient got none at all: issue 158232."""
    asked = [Requirement(text) for text in setup_arguments["extras_require"]["train"]]
    (torch,) = [requirement for requirement in asked if requirement.name == "torch"]
    assert torch.specifier.contains("2.13.0")
    assert not torch.specifier.contains("2.10.1")


def test_every_requirement_has_an_exact_version(setup_arguments):
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {
        requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower()
        for extra in setup_arguments["extras_require"].values()
        for requirement in extra
    }
    assert wanted - pinned <= {"torch", "setuptools"}


def test_every_pin_can_be_installed_on_the_first_release_of_its_python():
    """A distribution's Python, such as Debian 12's 3.11.2, is older than the newest one."""
    first = f"{sys.version_info.major}.{sys.version_info.minor}.0"
    here = {**default_environment(), "python_full_version": first}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in pins if "==" in line and not line.startswith("#")]
    refused = []
    for pin in pinned:
        if pin.marker is not None and not pin.marker.evaluate(here):
            continue
        try:
            about = importlib.metadata.metadata(pin.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        if pin.specifier.contains(about["Version"], prereleases=True):
            wanted = SpecifierSet(about["Requires-Python"] or "")
            refused += [] if wanted.contains(first) else [f"{pin.name} needs Python {wanted}"]
    assert refused == []


# ------------------------------------------------------------------------------------ colcon


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """The prefix of a real ``colcon build`` of this checkout."""
    if importlib.util.find_spec("colcon_core") is None:
        pytest.skip("needs colcon")
    workspace = tmp_path_factory.mktemp("workspace")
    source = workspace / "src" / "wm_ros"
    source.mkdir(parents=True)
    for name in ("wm_ros", "wm_core", "sim", "launch"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("package.xml", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source / name)
    colcon = [sys.executable, "-m", "colcon", "build", "--event-handlers", "console_direct+"]
    done = subprocess.run(colcon, cwd=workspace, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace / "install"


def test_colcon_installs_executables_index_and_launch_files(install, setup_arguments):
    prefix = install / "wm_ros"
    for line in setup_arguments["entry_points"]["console_scripts"]:
        assert os.access(prefix / "lib/wm_ros" / line.split("=")[0].strip(), os.X_OK), line
    assert (prefix / "share/ament_index/resource_index/packages/wm_ros").is_file()
    assert (prefix / "share/wm_ros/package.xml").is_file()
    assert {path.name for path in (ROOT / "launch").glob("*_launch.*")} == {
        path.name for path in (prefix / "share/wm_ros/launch").iterdir()
    }


def run_installed(install, command, **kwargs):
    """Start ``command`` in a shell that has sourced the workspace, as a user would."""
    python = Path(sys.executable).parent
    return subprocess.Popen(
        ["bash", "-c", f"source {install}/setup.bash && exec {command}"],
        env={**os.environ, "PATH": f"{python}:{os.environ['PATH']}"},
        cwd=install.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def test_the_installed_wm_answers(install):
    process = run_installed(install, f"{install}/wm_ros/lib/wm_ros/wm --help")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "usage: wm" in said


@pytest.mark.ros
def test_an_installed_node_starts_and_ends_cleanly_on_ctrl_c(install):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    node = f"{install}/wm_ros/lib/wm_ros/policy_node --ros-args -r __ns:=/house_test"
    process = run_installed(install, node)
    try:
        begun = ""
        while "safe action" not in begun and (line := process.stdout.readline()):
            begun += line  # it says so from its first tick on, behind what it says of its set-up
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, begun + said
    assert "safe action: no_policy" in begun
    assert "Traceback" not in said
