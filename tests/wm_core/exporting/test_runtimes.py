"""The same file on the oldest and the newest runtime that robots have, without torch or onnx."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HOME = Path(__file__).resolve().parents[3]
PROOF = """
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, {home!r})
from wm_core.contract.conformance import check_policy
from wm_core.contract.runner import PolicyEngine

runner = check_policy(Path({folder!r}))
engine = PolicyEngine(runner, seed=0)
sent = np.zeros(runner.spec.action.size, np.float32)
for _ in range(20):
    sent = engine.act(runner.spec.zeros(), sent).action
assert not {{"torch", "onnx"}} & set(sys.modules)
print(onnxruntime.__version__, np.__version__)
"""


@pytest.mark.parametrize(
    ("place", "version"), [(".venv-ort117", "1.17"), (".venv-robot-3.10", "1.23")]
)
def test_the_file_loads_proves_itself_and_acts_on(place, version, folder):
    python = HOME / place / "bin" / "python"
    if not (HOME / place / ".installed").exists():
        pytest.skip(f"no onnxruntime {version} here: make robot-setup")
    done = subprocess.run(
        [python, "-c", PROOF.format(home=str(HOME), folder=str(folder))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(version)
