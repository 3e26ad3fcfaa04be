"""A small agent that has a use for every input, and its policy on disk."""

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.exporting.exporter import PolicyExporter


def shake(agent, seed):
    """Move every weight, so that nothing is left at its initial zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def shaken():
    return shake


@pytest.fixture(scope="session")
def spec():
    return Spec(
        images={"image": ImageSpec(), "rear": ImageSpec(height=32, width=48, channels=1)},
        vectors={"proprio": VectorSpec(size=5)},
        # m/s and N m: float32 cannot agree to 1e-5 N m near zero, nor need it
        action=ActionSpec(low=(-0.5, -400.0), high=(1.5, 400.0), max_change=0.4),
        period_s=0.05,
    )


@pytest.fixture(scope="session")
def config():
    return presets.make("dreamer_v3", "micro")


@pytest.fixture(scope="session")
def agent(spec, config):
    made = AgentCore(spec, config, generator=torch.Generator().manual_seed(1))
    shake(made, 2)
    return made


@pytest.fixture(scope="session")
def exporter(agent, spec, config):
    return PolicyExporter(agent, spec, config, run_id="a-run", commit="abc", task="none")


@pytest.fixture(scope="session")
def export(exporter):
    return exporter.export(7, 300, 4000, golden_steps=40)


@pytest.fixture
def folder(export, tmp_path):
    PolicyFolder(tmp_path).write(*export, version=7, learner_updates=300)
    return tmp_path
