"""Every row of the table of attacks names a test that exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
REFERENCE = re.compile(r"`([\w/.-]+\.py)::(\w+)`")


def attacks(text: str) -> list[list[str]]:
    """Cells of every row of the tables below the heading "Attacks"."""
    rows = [line for line in text.split("\n## Attacks")[1].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return [row for row in cells if row[0] != "attack"]


def functions_of(path: Path) -> set[str]:
    """Names of the test functions of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def untested(text: str) -> list[str]:
    """Attacks whose row lacks a result, or a test that exists."""
    bad = []
    for row in attacks(text):
        references = REFERENCE.findall(row[-1])
        there = [
            (ROOT / path).is_file() and name in functions_of(ROOT / path)
            for path, name in references
        ]
        if len(row) != 3 or not all(row) or not there or not all(there):
            bad.append(" | ".join(row))
    return bad


def test_every_attack_has_a_result_and_a_test_that_exists():
    assert untested(PAGE.read_text()) == []


def test_no_attack_stands_twice():
    names = [row[0] for row in attacks(PAGE.read_text())]
    assert sorted(names) == sorted(set(names))
    assert len(names) >= 30


def test_a_row_whose_test_is_gone_is_found():
    here = "tests/house/test_security_page.py"
    head = "\n## Attacks\n\n| attack | what happens | test |\n|---|---|---|\n"
    good = f"{head}| a | b | `{here}::attacks` |\n"
    assert untested(good) == []
    assert untested(good.replace("attacks`", "gone`")) == [f"a | b | `{here}::gone`"]
    assert untested(good.replace(f"`{here}::attacks`", "by hand")) == ["a | b | by hand"]
