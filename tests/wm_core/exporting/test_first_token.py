"""An episode begins with a bias alone; layer norms behind it must not blow up its rounding."""

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.golden import check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.exporting.exporter import PolicyExporter

pytestmark = pytest.mark.long


def test_a_transformer_after_a_few_updates_begins_an_episode_as_its_file_does():
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    config = presets.make("transdreamer", "micro")
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # what Adam does in its first steps: every weight moves a little
        for weight in agent.parameters():
            weight.add_(5e-5 * torch.randn(weight.shape, generator=generator).sign())
    onnx, golden, _ = PolicyExporter(agent, spec, config).export(0, 0, 0, 5)
    runner = PolicyRunner.from_bytes(onnx)
    check_golden(golden, runner.card, runner.call)
