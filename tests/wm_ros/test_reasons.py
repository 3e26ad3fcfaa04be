"""Whatever stops the robot has a row that says how bad it is, why, and what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from wm_ros.safety.reasons import ERROR, REASONS, WARN, reason_of

PACKAGE = Path(__file__).parents[2] / "wm_ros"
STOPPERS = {"trip", "_safe"}  #: what is called with the word of a reason


def words_used():
    """Every reason that the code gives as a literal."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = node.args[:1] if name in STOPPERS else []
            given += [k.value for k in node.keywords if k.arg in ("refused", "reason")]
            for value in (v for arg in given for v in ast.walk(arg)):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def test_every_reason_in_the_code_has_a_row():
    used = set(words_used())
    assert {"no_policy", "no_frame", "nan_action", "policy_failed"} <= used
    assert used - REASONS.keys() == set()


@pytest.mark.parametrize("word", REASONS)
def test_a_row_says_what_is_wrong_and_what_to_do(word):
    row = REASONS[word]
    assert row.level in (WARN, ERROR)
    assert len(row.sentence.split()) >= 4
    assert len(row.advice.split()) >= 3
    assert row.text("12 of 20 s").startswith(f"{row.sentence} (12 of 20 s); ")


def test_a_missing_sensor_is_named_and_an_unknown_reason_is_an_error():
    assert "'wrist'" in reason_of("no_wrist").sentence
    assert reason_of("gone_fishing").level == ERROR
