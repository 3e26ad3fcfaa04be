"""Files and functions that one can hold in one's head, and shapes that one can read."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wm_core", "wm_ros", "sim", "launch")
FILE_LINES, FUNCTION_LINES = 450, 60
SHAPE = re.compile(r"\([^()]*\)")
ARRAY = re.compile(r"\b(Tensor|ndarray)\b")

SOURCES = sorted(path for top in PACKAGES for path in (ROOT / top).rglob("*.py"))


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def where(path, node=None):
    return f"{path.relative_to(ROOT)}" + (f":{node.lineno} {node.name}" if node else "")


def test_no_file_is_too_long():
    lengths = {where(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_too_long():
    long = {
        where(path, node): node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


def test_no_module_is_named_for_what_it_is_not():
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "base_class"}
    shadowing = {"math", "queue", "logging", "types", "random", "launch"}
    assert [where(path) for path in SOURCES if path.stem in vague | shadowing] == []


def public_and_its_docs(path):
    """(function, its docstring and its class's) of every public one outside protocols' stubs."""

    def visit(node, docs, public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                inner = docs + (ast.get_docstring(child) or "")
                yield from visit(child, inner, public and not child.name.startswith("_"))
            elif isinstance(child, ast.FunctionDef) and public and child.name[0] != "_":
                yield child, docs + (ast.get_docstring(child) or "")

    yield from visit(ast.parse(path.read_text()), "", True)


@pytest.mark.parametrize("top", ["wm_core", "wm_ros", "sim"])
def test_a_public_array_has_its_shape_in_words(top):
    silent, told = [], set()
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != top:
            continue
        for node, docs in public_and_its_docs(path):
            if SHAPE.search(docs):
                told.add(node.name)
            arguments = [*node.args.args, *node.args.kwonlyargs]
            annotations = [a.annotation for a in arguments] + [node.returns]
            arrays = [ast.unparse(a) for a in annotations if a and ARRAY.search(ast.unparse(a))]
            if arrays and not SHAPE.search(docs):
                overrides = ast.get_docstring(node) is None  # speaks through its base class
                silent.append((node.name if overrides else None, where(path, node)))
    assert [place for name, place in silent if name not in told] == []
