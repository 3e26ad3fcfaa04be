"""The worked examples and their notebooks run from top to bottom, at the smallest setting."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
NAMES = ("rssm_continuous", "rssm_discrete", "tssm")
#: a network of next to nothing, on a task that costs nothing
OPTIONS = (
    "--task own_task:Corridor-v0 --world.depth 2 --world.deter 16 --world.hidden 8 "
    "--world.blocks 2 --world.units 16 --world.bins 41 --world.transformer.layers 1 "
    "--behavior.imag-starts 4 --behavior.imag-horizon 2 --replay.batch 2 --replay.length 8 "
    "--replay.latents 1000 --train.prefill 64 --quiet"
)
#: Runs scripts one after the other in one process, where torch has to be imported once.
SCRIPTS = """
import runpy, sys
cut = sys.argv.index("--")
scripts, words = sys.argv[1:cut], sys.argv[cut + 1 :]
for script in scripts:
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")
"""
#: Runs notebooks one after the other in one kernel, which forgets all names in between.
RUNNER = """
import sys
import nbformat
from nbclient import NotebookClient
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
try:
    for path in sys.argv[1:]:
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        NotebookClient(notebook, km=manager, timeout=300).execute(cleanup_kc=False)
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                print(output.get("text", output.get("data", {}).get("text/plain", "")))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


@pytest.fixture
def environment():
    """Of a process that can import the package and the task of one's own."""
    paths = [str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return os.environ | threads | {"WM_UPDATES": "4", "WM_OPTIONS": OPTIONS}


def run(words, *, cwd, env):
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_scripts_train_show_judge_and_act(tmp_path, environment):
    words = ["--updates", "4", *OPTIONS.split()]
    scripts = [str(EXAMPLES / f"{name}.py") for name in NAMES]
    said = run(["-c", SCRIPTS, *scripts, "--", *words], cwd=tmp_path, env=environment)
    assert said.count("4 updates from 64 steps") == len(NAMES)
    assert said.count("random actions on own_task:Corridor-v0") == len(NAMES)
    assert said.count("reward ") == 5 * len(NAMES)
    made = {"imagined.gif", "imagined.png", "policy/policy.onnx"}
    for name in NAMES:
        folder = tmp_path / "runs" / "examples" / name
        assert all((folder / one).stat().st_size > 0 for one in made)


@pytest.mark.long
def test_the_notebooks_run_from_top_to_bottom(tmp_path, environment):
    said = run(["-c", RUNNER, *map(str, NOTEBOOKS)], cwd=tmp_path, env=environment)
    assert said.count("4 updates from 64 steps") == len(NOTEBOOKS) == len(NAMES)
    assert said.count("reward ") == 5 * len(NOTEBOOKS)
    for name in NAMES:
        assert (tmp_path / "runs" / "examples" / name / "policy" / "policy.onnx").exists()


@pytest.mark.parametrize("name", NAMES)
def test_script_and_notebook_train_the_same(name):
    script = (EXAMPLES / f"{name}.py").read_text()
    notebook = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text())
    code = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    preset, changes = (
        line.split('"')[1]
        for line in script.splitlines()
        if line.startswith(("PRESET", "CHANGES"))
    )
    assert f'presets.make("{preset}", "micro")' in code
    assert f'options = "{changes}"' in code
    assert len(script.splitlines()) < 90


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_what_they_print(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [(c["outputs"], c["execution_count"]) for c in cells if c["cell_type"] == "code"]
    assert outputs == [([], None)] * len(outputs)
