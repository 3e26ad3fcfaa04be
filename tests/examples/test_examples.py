"""The worked examples and their notebooks run from top to bottom, with few updates."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = EXAMPLES / "notebooks"
NAMES = ("rssm_continuous", "rssm_discrete", "tssm")
LONG = 'TASK, UPDATES = "seek", 1500'
SHORT = 'TASK, UPDATES = "own_task:Corridor-v0", 4'  #: a task that costs nothing
#: Runs a notebook and prints what its cells print.
RUNNER = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text", ""))
"""
PRINTED = {
    "rssm_continuous": ("4 updates from", "the frame told", "random actions: return"),
    "rssm_discrete": ("4 updates from", "posterior: 2.", "action [", "return "),
    "tssm": (
        "4 updates from",
        "posterior unchanged: True",
        "carry of the file: ['keys', 'values'",
    ),
}
WRITTEN = {"rssm_continuous": "still.png", "rssm_discrete": "futures.png", "tssm": "imagined.gif"}


def run(words, cwd):
    """Run Python in a process that can import the package and the task of one's own."""
    paths = [str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | threads,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shortened(path, folder):
    """A copy of the example that trains for a moment."""
    text = path.read_text()
    short = SHORT.replace('"', '\\"') if path.suffix == ".ipynb" else SHORT
    long = LONG.replace('"', '\\"') if path.suffix == ".ipynb" else LONG
    assert text.count(long) == 1
    copy = folder / path.name
    copy.write_text(text.replace(long, short))
    return str(copy)


def check_made(name, printed, folder):
    assert [words for words in PRINTED[name] if words not in printed] == []
    assert (folder / "runs/examples" / name / WRITTEN[name]).stat().st_size > 0
    assert (folder / "runs/examples" / name / "policy/policy.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_script_trains_looks_into_the_model_and_exports(name, tmp_path):
    printed = run([shortened(EXAMPLES / f"{name}.py", tmp_path)], tmp_path)
    check_made(name, printed, tmp_path)


@pytest.mark.long
def test_a_notebook_runs_from_top_to_bottom(tmp_path):
    copy = shortened(NOTEBOOKS / "rssm_discrete.ipynb", tmp_path)
    check_made("rssm_discrete", run(["-c", RUNNER, copy], tmp_path), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_is_what_its_script_makes(name):
    path = NOTEBOOKS / "from_scripts.py"
    spec = importlib.util.spec_from_file_location("from_scripts", path)
    from_scripts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(from_scripts)
    made = from_scripts.notebook_of(name)
    assert json.loads((NOTEBOOKS / f"{name}.ipynb").read_text()) == made, (
        "write the notebooks anew: python examples/notebooks/from_scripts.py"
    )


def test_the_scripts_share_no_long_passage():
    """What all of them need is a function of the library."""
    lines = {name: (EXAMPLES / f"{name}.py").read_text().splitlines() for name in NAMES}
    for name in NAMES[1:]:
        common = {*lines[NAMES[0]]} & {*lines[name]}
        assert len(common) < 25
