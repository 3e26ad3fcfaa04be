"""The nodes use the one executor that neither hangs nor spins on any ROS 2 that they run on."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: what deadlocks, spins or jitters on one of Humble, Jazzy and Lyrical
FORBIDDEN = {"AsyncNode", "EventsExecutor", "MultiThreadedExecutor"}


def names_in(path):
    """Every name and attribute that a file uses, and every word of its strings but docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.Call):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str))


@pytest.mark.parametrize("folder", ["wm_ros", "wm_core", "launch", "benchmarks", "examples"])
def test_no_executor_is_used_that_hangs_or_spins(folder):
    used = {
        (path.relative_to(ROOT), name)
        for path in (ROOT / folder).rglob("*.py")
        for name in names_in(path)
        if name in FORBIDDEN
    }
    assert used == set()


@pytest.mark.parametrize(
    "line",
    [
        "from rclpy.executors import MultiThreadedExecutor",
        "import rclpy.experimental.events_executor as e; e.EventsExecutor()",
        "rclpy.executors.MultiThreadedExecutor()",
        "getattr(rclpy.executors, 'EventsExecutor')",
        "from rclpy.experimental import AsyncNode as Node",
    ],
)
def test_such_an_executor_is_found_however_it_is_named(line, tmp_path):
    (tmp_path / "node.py").write_text(line)
    assert FORBIDDEN & set(names_in(tmp_path / "node.py"))
