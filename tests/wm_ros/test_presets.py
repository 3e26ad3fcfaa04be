"""One policy node runs every system's policy: with a memory of any kind, or with none."""

from __future__ import annotations

import pytest

from tests.wm_ros.conftest import tiny_spec
from wm_core import presets

pytestmark = [pytest.mark.ros, pytest.mark.long]

STEPS = 30  # over two episodes of the counting task


@pytest.fixture
def policy_of(tmp_path):
    """Writes the untrained policy of a preset into a folder."""
    torch = pytest.importorskip("torch", reason="needs the trainer's half")
    from wm_core.agents.agent import AgentCore
    from wm_core.contract.policy_folder import PolicyFolder
    from wm_core.exporting.exporter import PolicyExporter

    def write(preset: str):
        spec, config = tiny_spec(), presets.make(preset, "micro")
        agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
        export = PolicyExporter(agent, spec, config).export(0, 0, 0)
        folder = tmp_path / "policies" / "00000000"
        folder.mkdir(parents=True)
        PolicyFolder(folder).write(*export, version=0)
        return folder.parent

    return write


#: their memory is dreamer_v3's, of other sizes
ALIKE = ("dreamer_v1", "dreamer_v2", "daydreamer", "r2dreamer")


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset, marks=pytest.mark.slow if preset in ALIKE else ())
        for preset in presets.PRESETS
    ],
)
def test_the_node_acts_by_the_untrained_policy_of_a_preset(
    preset, policy_of, processes, watcher, report_of, tmp_path
):
    state = tmp_path / "state"
    params = {"policy_dir": str(policy_of(preset)), "state_dir": str(state)}
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    processes.start("policy_node", params)
    report = state / "status.json"
    watcher.until(lambda: report_of(report).get("steps_recorded", 0) >= STEPS, f"{STEPS} steps")
    assert processes.stop("policy_node") == 0
    assert processes.stop("sim_node") == 0
    status = report_of(report)
    assert status["policy_version"] == 0
    assert status["ticks"] >= STEPS
