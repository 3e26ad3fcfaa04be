"""The launch files without ROS: every name in them leads somewhere."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path

import pytest
import yaml

from wm_core.contract.spec import Frozen
from wm_ros import settings
from wm_ros.parameters import params
from wm_ros.settings import NodeSettings, PolicySettings, SimSettings, StreamSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch"
FILES = sorted(FOLDER.glob("*_launch.py"))
TABLES = {"policy_node": params.POLICY, "sim_node": params.SIM}
BUILT_IN = {"use_sim_time"}  # every node has it


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def table_of(path: Path, name: str) -> list[str]:
    """First strings of a tuple of tuples, strings of a tuple, or keys of a dict, in ``name``."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            if isinstance(node.value, ast.Dict):
                return [key.value for key in node.value.keys]
            items = [e.elts[0] if isinstance(e, ast.Tuple) else e for e in node.value.elts]
            return [item.value for item in items]
    return []


def calls_in(path: Path, name: str) -> list[ast.Call]:
    calls = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    return [c for c in calls if getattr(c.func, "id", "") == name]


def strings_in(call: ast.Call) -> list[str]:
    return [n.value for n in ast.walk(call) if isinstance(n, ast.Constant) and n.value]


def test_the_folder_is_no_package_and_its_files_can_be_imported_by_linters():
    assert not (FOLDER / "__init__.py").exists()
    assert {p.stem for p in FILES} == {"robot_launch", "sim_launch"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_executable_is_an_entry_point_of_the_package(path):
    scripts = {e.name for e in importlib.metadata.distribution("wm_ros").entry_points}
    nodes = calls_in(path, "Node")
    assert nodes
    for node in nodes:
        found = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        assert found["package"] == "wm_ros"
        assert found["executable"] in scripts & TABLES.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_argument_that_is_used_is_declared_and_described(path):
    declared = table_of(path, "ARGUMENTS")
    assert len(set(declared)) == len(declared)
    used = {s for call in calls_in(path, "LaunchConfiguration") for s in strings_in(call)}
    keys = {
        n.slice.value
        for n in ast.walk(tree_of(path))
        if isinstance(n, ast.Subscript) and getattr(n.value, "id", "") == "got"
        if isinstance(n.slice, ast.Constant)
    }
    assert used | keys <= set(declared)


def test_users_find_the_arguments_they_expect():
    expected = {"namespace", "use_sim_time", "params_file", "use_respawn", "log_level"}
    expected |= {"camera_topic", "remap"}
    for path in FILES:
        assert expected <= set(table_of(path, "ARGUMENTS"))
    robot = FOLDER / "robot_launch.py"
    shared = table_of(robot, "SHARED")  # with the launch file of the driver
    assert shared
    assert {"autostart", "robot_file", "driver_launch", *shared} <= set(
        table_of(robot, "ARGUMENTS")
    )


def test_every_parameter_that_a_launch_file_sets_is_declared_by_its_node():
    policy = {p.name for p in params.POLICY} | BUILT_IN
    robot = FOLDER / "robot_launch.py"
    passed = [
        n for kind in ("SWITCHES", "WORDS", "LISTS", "NUMBERS") for n in table_of(robot, kind)
    ]
    assert set(passed) <= policy & set(table_of(robot, "ARGUMENTS")) | BUILT_IN
    dicts = [n for n in ast.walk(tree_of(FOLDER / "sim_launch.py")) if isinstance(n, ast.Dict)]
    keys = {k.value for d in dicts for k in d.keys if isinstance(k, ast.Constant)}
    assert keys <= {p.name for p in params.SIM} | BUILT_IN


def defaults_in(path: Path) -> dict[str, str]:
    """Default of each argument that is a plain word."""
    (table,) = (
        n.value
        for n in tree_of(path).body
        if isinstance(n, ast.Assign) and n.targets[0].id == "ARGUMENTS"
    )
    found = {e.elts[0].value: e.elts[1] for e in table.elts}
    return {name: d.value for name, d in found.items() if isinstance(d, ast.Constant)}


def test_the_driver_shares_an_argument_only_where_it_was_set():
    """``SHARED`` repeats the defaults, at which an argument counts as not set."""
    path = FOLDER / "robot_launch.py"
    (shared,) = (
        ast.literal_eval(n.value)
        for n in tree_of(path).body
        if isinstance(n, ast.Assign) and n.targets[0].id == "SHARED"
    )
    assert shared.items() <= defaults_in(path).items()


def test_both_launch_files_agree_on_the_arguments_that_they_share():
    """Except for those whose default the simulation computes, and for what a picture without
    noise needs."""
    robot, simulated = (defaults_in(FOLDER / f"{name}_launch.py") for name in ("robot", "sim"))
    common = robot.keys() & simulated.keys() - {"frozen_s"}
    assert {"camera_topic", "remap", "namespace"} <= common
    assert {n: robot[n] for n in common} == {n: simulated[n] for n in common}


def flat(tree: dict, prefix: str = "") -> dict:
    """Nested parameters of a YAML file by their dotted names."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def test_the_parameter_file_lists_defaults_and_says_the_same_as_the_settings():
    known = {p.name: p.default for table in TABLES.values() for p in table}
    given = flat(yaml.safe_load((FOLDER / "wm_ros.yaml").read_text())["/**"]["ros__parameters"])
    assert given
    for key, value in given.items():
        assert (value, type(value)) == (known[key], type(known[key])), key


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_file_that_is_named_is_installed(path):
    named = {
        s for call in calls_in(path, "PathJoinSubstitution") for s in strings_in(call) if "." in s
    }
    assert named
    setup = (ROOT / "setup.py").read_text()
    for name in named:
        assert (FOLDER / name).exists(), name
    for pattern in (
        "launch/*_launch.*",
        "launch/*.yaml",
        "launch/*.xml",
        "examples/robots/*.yaml",
    ):
        assert pattern in setup


def test_parameters_have_a_text_and_defaults_within_their_ranges():
    for table in (*TABLES.values(), params.sensor_params("wrist")):
        for param in table:
            assert len(param.text.split()) >= 4, param.name
            number = type(param.default) in (int, float)
            assert number == (param.low is not None) == (param.high is not None), param.name
            words = param.default if isinstance(param.default, list) else [param.default]
            assert not param.choices or set(words) <= set(param.choices)
            if param.low is not None:
                assert param.low <= param.default <= param.high


def test_both_nodes_agree_on_the_parameters_that_they_share():
    policy, sim = ({p.name: p for p in table} for table in TABLES.values())
    shared = policy.keys() & sim.keys()
    assert shared == NodeSettings.model_fields.keys()
    assert all(policy[name] == sim[name] for name in shared)


def test_no_two_parts_of_a_node_use_one_name():
    """The models are joined by inheritance, in which one field would silently hide another."""
    for model in (PolicySettings, SimSettings):
        own = [name for part in model.__mro__ for name in vars(part).get("__annotations__", ())]
        names = [name for name in own if name in model.model_fields]
        assert sorted(names) == sorted(set(names))


def models_of_settings() -> set[type[Frozen]]:
    """Every model of settings that the robot's parts define."""
    parts = ("client", "live", "policy_client", "spool", "uploader")
    names = [f"wm_core.link.robot.{part}" for part in parts]
    modules = [settings, *map(importlib.import_module, names)]
    found = {v for m in modules for k, v in vars(m).items() if k.endswith("Settings")}
    assert len(found) > 8
    return found


def test_every_setting_of_the_robot_can_be_reached_by_a_parameter():
    tables = (*TABLES.values(), params.sensor_params("wrist"))
    reached = {p.name.rpartition(".")[2] for table in tables for p in table}
    groups = set(StreamSettings.model_fields) - reached  # settings within settings
    assert groups == {"spool", "upload", "delivery", "live"}
    for model in models_of_settings():
        missing = set(model.model_fields) - reached - groups
        assert not missing, f"{model.__name__}: {missing}"


def test_names_of_earlier_releases_lead_to_parameters():
    names = {p.name for p in params.POLICY}
    assert set(params.RENAMED.values()) <= names
    assert not set(params.RENAMED) & names
