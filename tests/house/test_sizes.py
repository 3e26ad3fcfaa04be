"""Files and functions that one can hold in one's head, and arrays whose shapes one can read."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wm_core", "wm_ros", "sim", "launch")
FILE_LINES, TEST_FILE_LINES, FUNCTION_LINES = 400, 470, 60
ARRAY = re.compile(r"\b(Tensor|ndarray)\b")

#: one axis: a name (``B``, ``T_imag + 1``, ``*space.shape``), a number, ``1 or 3``, ``...`` for
#: any axes or ``.`` for any one
AXIS = r"(?:\*?[A-Za-z_][\w.']*|\d+(?: or \d+)*|\.\.\.|\.)(?:\s*[-+*/]\s*\w+)*"
#: ``()``, ``(...)``, ``(*shape)``, ``(n,)``, ``(B, T)``; a call as in ``close()`` is none
SHAPE = re.compile(rf"(?<![\w`])\((?:|\.\.\.|\*[\w.]+|{AXIS},|{AXIS}(?:, {AXIS})+)\)")

SOURCES = sorted(path for top in PACKAGES for path in (ROOT / top).rglob("*.py"))


def functions(path):
    """Every function of a file, methods and inner ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def where(path, node=None):
    return f"{path.relative_to(ROOT)}" + (f":{node.lineno} {node.name}" if node else "")


def longer_than(lines, paths):
    lengths = {where(path): len(path.read_text().splitlines()) for path in paths}
    return {name: length for name, length in lengths.items() if length > lines}


def test_no_file_is_too_long():
    assert longer_than(FILE_LINES, SOURCES) == {}
    assert longer_than(TEST_FILE_LINES, (ROOT / "tests").rglob("*.py")) == {}


def test_no_function_is_too_long():
    long = {
        where(path, node): node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


def test_no_module_has_a_vague_name_or_hides_another_package():
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "base_class"}
    shadowing = {"math", "queue", "logging", "types", "random", "launch"}
    assert [where(path) for path in SOURCES if path.stem in vague | shadowing] == []


@pytest.mark.parametrize(
    "text", ["()", "(...)", "(n,)", "(B, T)", "(T, H, W, 1 or 3)", "(N, 2*A)"]
)
def test_a_shape_in_a_docstring_is_recognised(text):
    assert SHAPE.search(f"{text} float32 rewards.")


@pytest.mark.parametrize(
    "text", ["See ``close()``.", "Ends it (see below).", "Windows (in order, by age).", "f(a, b)"]
)
def test_a_remark_in_brackets_or_a_call_is_no_shape(text):
    assert not SHAPE.search(text)


def public_functions(path):
    """(function, whether it is a method) of every public function outside private classes."""

    def visit(node, in_class):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                yield from visit(child, True)
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                yield child, in_class

    yield from visit(ast.parse(path.read_text()), False)


def takes_or_gives_arrays(function):
    arguments = [*function.args.args, *function.args.kwonlyargs]
    annotations = [a.annotation for a in arguments] + [function.returns]
    return any(ARRAY.search(ast.unparse(a)) for a in annotations if a)


@pytest.mark.parametrize("top", ["wm_core", "wm_ros", "sim"])
def test_a_public_array_has_its_shape_in_words(top):
    """A method without a docstring speaks through the base class or protocol that it follows."""
    lacking, with_shape = [], set()
    for path in sorted((ROOT / top).rglob("*.py")):
        for function, in_class in public_functions(path):
            docs = ast.get_docstring(function)
            if docs and SHAPE.search(docs):
                with_shape |= {function.name} if in_class else set()
            elif takes_or_gives_arrays(function):
                follows = in_class and docs is None
                lacking.append((function.name if follows else None, where(path, function)))
    assert [place for name, place in lacking if name not in with_shape] == []
