import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.cli.main import main
from wm_core.contract.conformance import check_policy
from wm_core.contract.golden import read_golden
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.training import checkpoint

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with one checkpoint, as `wm train` writes it."""
    folder = tmp_path_factory.mktemp("run")
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    config = presets.make("dreamer_v3", "micro")
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    state = {
        "config": config.model_dump(),
        "spec": spec.model_dump(mode="json"),
        "task": "somewhere:Else-v0",
        "learner": {"agent": agent.state_dict(), "updates": 40},
        "agent_steps": 900,
    }
    checkpoint.save(folder, state, updates=40, keep=1)
    return folder


def test_a_run_becomes_a_policy_that_a_robot_accepts(run, tmp_path, capsys):
    out = tmp_path / "policy"
    assert main(["export", "--run", str(run), "--out", str(out), "--golden-steps", "7"]) == 0
    card = check_policy(out).card
    assert (card.task, card.learner_updates, card.agent_steps) == ("somewhere:Else-v0", 40, 900)
    assert len(read_golden((out / "policy.golden.npz").read_bytes())["in/is_first"]) == 7
    assert "proved over 7 steps" in " ".join(capsys.readouterr().out.split())
    assert sorted(p.name for p in out.iterdir()) == [
        "policy.golden.npz",
        "policy.manifest.json",
        "policy.onnx",
    ]


def test_a_run_that_does_not_exist_is_named_and_nothing_is_written(run, tmp_path, capsys):
    out = tmp_path / "policy"
    assert main(["export", "--run", str(run) + "x", "--to", str(out)]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_said(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "policy"
    assert main(["export", "--run", str(run), "--out", str(out), "--golden-steps", "1"]) == 2
    assert "cannot write the policy" in capsys.readouterr().err
