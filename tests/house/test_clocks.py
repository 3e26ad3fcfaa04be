"""No test asserts how long something took: on a busy machine everything takes longer.

A test may wait until something is true, and a deadline may bound that wait, so that a fault is a
failure and no hang. What is claimed is order, counts, or a result under a clock that the test
sets. How fast things are is measured by ``benchmarks/`` and ``wm bench``.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "perf_counter", "time", "process_time", "thread_time"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS}


def reads_clock(node: ast.AST) -> bool:
    """Whether an expression calls a function of ``time`` that reads a clock."""
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    return any(
        isinstance(f, ast.Attribute)
        and isinstance(f.value, ast.Name)
        and f.value.id == "time"
        and f.attr in CLOCKS
        for f in calls
    )


def names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def subtracts(node: ast.AST, instants: set[str]) -> bool:
    """Whether an expression subtracts a reading of a clock from another."""
    differences = [n for n in ast.walk(node) if isinstance(n, ast.BinOp)]
    return any(
        isinstance(n.op, ast.Sub) and (reads_clock(n) or names_in(n) & instants)
        for n in differences
    )


def timed_assertions(source: str) -> list[int]:
    """Lines of assertions on a difference of two clock readings, or on a name that holds one."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        instants: set[str] = set()
        durations: set[str] = set()
        assigned = [n for n in ast.walk(function) if isinstance(n, ast.Assign)]
        for node in sorted(assigned, key=lambda n: n.lineno):
            names = set().union(*(names_in(target) for target in node.targets))
            if subtracts(node.value, instants) or names_in(node.value) & durations:
                durations |= names
            elif reads_clock(node.value):
                instants |= names
        found += [
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.Assert)
            and (subtracts(node.test, instants) or names_in(node.test) & durations)
        ]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f():\n t = time.monotonic()\n g()\n assert time.monotonic() - t < 2", [4]),
        ("def f():\n t = time.time()\n took = time.time() - t\n assert took / 20 < 1", [4]),
        ("def f():\n end = time.monotonic() + 60\n assert time.monotonic() < end", []),
        ("def f():\n a, b = 3, 1\n assert a - b == 2", []),
    ],
)
def test_an_assertion_on_a_duration_is_found_and_a_deadline_is_none(source, lines):
    assert timed_assertions(source) == lines


def test_no_test_asserts_how_long_something_took():
    timed = {
        str(path.relative_to(TESTS)): lines
        for path in sorted(TESTS.rglob("*.py"))
        if (lines := timed_assertions(path.read_text()))
    }
    assert timed == {}
