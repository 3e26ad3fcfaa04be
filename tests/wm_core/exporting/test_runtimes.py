"""The same file on the oldest and the newest runtime that robots have, without torch or onnx."""

import subprocess
from pathlib import Path

import onnx
import pytest

from wm_core.contract.golden import check_golden, read_golden, rollout
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.eight_bits import make_int8
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.quantize import unfused
from wm_core.library.adopt import adopt

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

for folder in {folders!r}:
    runner = check_policy(Path(folder))
    engine = PolicyEngine(runner, seed=0)
    sent = np.zeros(runner.spec.action.size, np.float32)
    for _ in range(20):
        sent = engine.act(runner.spec.zeros(), sent).action
assert not {{"torch", "onnx"}} & set(sys.modules)
print(onnxruntime.__version__, np.__version__)
"""


#: a network with a memory, a history of its input and an action of two numbers
NETWORK = """
<ir_version: 8, opset_import: ["": 17]>
net (float[n,6] obs, float[1,n,2] h_in) => (float[n,2] actions, float[1,n,2] h_out)
<float[6,2] weight = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2},
 int64[1] first = {0}>
{
    moved = MatMul(obs, weight)
    squeezed = Squeeze(h_in, first)
    sum = Add(moved, squeezed)
    actions = Tanh(sum)
    h_out = Unsqueeze(actions, first)
}
"""


@pytest.fixture
def eight_bits(export, tmp_path):
    """The policy of ``export`` in 8 bits, on disk."""
    runner = PolicyRunner.from_bytes(export.onnx)
    feeds = [feed for feed, _ in rollout(read_golden(export.golden), runner.card)]

    def write(exporter, agent):
        exporter.step.refresh(agent)
        PolicyFolder(tmp_path / "int8").write(*make_int8(export, exporter.step, feeds), version=7)
        return tmp_path / "int8"

    return write


@pytest.fixture
def adopted(tmp_path):
    """Another trainer's network, adopted."""
    onnx.save(onnx.parser.parse_model(NETWORK), tmp_path / "net.onnx")
    parts = [{"name": "x", "size": 2, "history": 3, "newest_first": True}]
    said = {
        "period_s": 0.1,
        "inputs": {"obs": {"parts": parts, "normalisation": "none"}},
        "action": {"scale": 1.0, "default": 0.0, "low": -0.5, "high": 0.5, "max_rate": 2.0},
    }
    adopt(tmp_path / "net.onnx", tmp_path / "adopted", said)
    return tmp_path / "adopted"


@pytest.mark.parametrize(
    ("place", "version"), [(".venv-ort117", "1.17"), (".venv-robot-3.10", "1.23")]
)
def test_every_kind_of_file_loads_proves_itself_and_acts_on(
    place, version, folder, eight_bits, adopted, exporter, agent
):
    python = HOME / place / "bin" / "python"
    if not (HOME / place / ".installed").exists():
        pytest.skip(f"no onnxruntime {version} here: make robot-setup")
    folders = [str(f) for f in (folder, eight_bits(exporter, agent), adopted)]
    done = subprocess.run(
        [python, "-c", PROOF.format(home=str(HOME), folders=folders)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(version)


@pytest.mark.parametrize(
    ("preset", "discrete"), [("dreamer_v3", True), ("transdreamer", False)], ids=["GRU", "ring"]
)
def test_eight_bits_prove_themselves_where_nothing_is_fused(preset, discrete, small, shaken):
    """What integer arithmetic answered, the same graph in float32 repeats within its tolerance."""
    parts = small(preset, discrete=discrete, vectors=True)
    agent = parts.agent()
    shaken(agent, 2)
    exporter = PolicyExporter(agent, parts.spec, parts.config)
    export = exporter.export(0, 0, 0, 30)
    card = PolicyRunner.from_bytes(export.onnx).card
    feeds = [feed for feed, _ in rollout(read_golden(export.golden), card)]
    made = make_int8(export, exporter.step, feeds)
    runner = PolicyRunner.from_bytes(made.onnx)
    for call in (runner.call, unfused(made.onnx)):
        assert check_golden(made.golden, runner.card, call) <= runner.card.tolerance.largest
