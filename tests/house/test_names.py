"""A name means one thing: no two public classes, functions or types are called alike."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: names that stand once per file on purpose, and why
ONCE_PER_FILE = {
    "main": "what a verb or an executable runs",
    "run": "what `wm bench` calls, one per subject",
    "recognise": "what a reader of recordings has, one per format",
    "open_source": "the same",
    "writer": "what a writer of recordings has, one per format",
    "Source": "of a sensor's messages on the robot; of a recording's episodes elsewhere",
    "measure": "one per subject of `wm bench`",
}


def defined(path: Path) -> set[str]:
    """Public classes, functions and aliases of types at the top of a module."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            names |= {name} if name[0].isupper() and not name.isupper() else set()
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_is_defined_twice():
    places = defaultdict(list)
    for package in ("wm_core", "wm_ros"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in defined(path) - ONCE_PER_FILE.keys():
                places[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
