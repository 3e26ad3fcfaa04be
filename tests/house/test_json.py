"""JSON that this project writes is JSON everywhere: NaN and infinity are null in it."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from wm_core.contract.files import json_text

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "wm_core" / "contract" / "files.py"


def bare_writers(source: str) -> list[int]:
    """Lines that call ``json.dumps`` or ``json.dump``, or take them out of the module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = node.attr if isinstance(node, ast.Attribute) else None
        if name in ("dumps", "dump") and getattr(node.value, "id", "") == "json":
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "source", ["import json\njson.dumps(1)", "write = json.dump", "from json import dumps"]
)
def test_a_bare_writer_is_found(source):
    assert bare_writers(source)


def test_only_one_function_writes_json():
    files = [p for room in ("wm_core", "wm_ros", "sim") for p in (ROOT / room).rglob("*.py")]
    bare = {str(p): bare_writers(p.read_text()) for p in files if p != WRITER}
    assert {path: lines for path, lines in bare.items() if lines} == {}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), np.float32("nan"), np.float64("-inf"), np.float16("inf")]
)
def test_what_is_no_number_is_null_wherever_it_stands(value):
    text = json_text({"a": value, "b": [1.5, (value,)], "c": {"d": value}})
    assert json.loads(text) == {"a": None, "b": [1.5, [None]], "c": {"d": None}}


def test_numbers_of_numpy_are_numbers_and_keys_stay():
    text = json_text({"a": np.float32(0.5), 1: 2.0, float("nan"): 3})
    assert json.loads(text) == {"a": 0.5, "1": 2.0, "nan": 3}
