"""The exported file against torch: every step from the same carry, resets included."""

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.conformance import check_policy
from wm_core.contract.golden import PARITY, check_golden, read_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep
from wm_core.presets.micro import changed

pytestmark = pytest.mark.long


def test_two_hundred_steps_with_resets_agree_with_torch(exporter):
    export = exporter.export(1, 0, 0, golden_steps=200)
    runner = PolicyRunner.from_bytes(export.onnx)
    golden = read_golden(export.golden)
    assert golden["in/is_first"].sum() > 10
    worst = check_golden(export.golden, runner.card, runner.call)
    assert worst <= PARITY


def test_the_golden_rollout_draws_varied_latents_and_reaches_the_limits(export, spec):
    golden = read_golden(export.golden)
    drawn = golden["out/next_stoch"]
    np.testing.assert_array_equal(drawn.sum(-1), 1.0)
    assert len(np.unique(drawn.argmax(-1)[:, 0])) > 3
    moved = np.abs(golden["out/action"] - golden["in/prev_action"])
    assert np.isclose(moved, spec.action.max_change, atol=1e-6).any()
    assert (moved < spec.action.max_change - 1e-3).any()
    assert golden["frame/image"].shape[0] > spec.images["image"].height


def test_the_exported_step_is_the_step_that_the_agent_takes_in_training(agent, spec):
    """The same uniforms through ``AgentCore``'s own parts and through ``PolicyStep``."""
    step, generator = PolicyStep(agent, spec), torch.Generator().manual_seed(3)
    latent = agent.initial(1)
    prev_action = torch.zeros(1, spec.action.size)
    for t in range(5):
        obs = {
            k: torch.randint(0, 256, (1, *i.shape), dtype=torch.uint8, generator=generator)
            for k, i in spec.images.items()
        }
        obs |= {k: torch.randn(1, v.size, generator=generator) for k, v in spec.vectors.items()}
        uniform = torch.rand((1, *agent.world.dynamics.latent_dist.shape), generator=generator)
        first = torch.tensor([t == 0])
        with torch.no_grad():
            after = agent.world.observe_step(latent, prev_action, obs, first, uniform)
            mean = agent.behavior.actor.dist(after.feat).mean
            half = torch.full((1, spec.action.size), 0.5)
            given = (*obs.values(), latent.deter, latent.stoch, prev_action, first, uniform, half)
            action, _, deter, stoch, value, _ = step(*given)
        np.testing.assert_array_equal(deter, after.deter)
        np.testing.assert_array_equal(stoch, after.stoch)
        want = agent.behavior.critic.fast.value(agent.behavior.critic.fast(after.feat)).detach()
        np.testing.assert_allclose(value, want, rtol=1e-4)
        want = spec.action.limit(mean[0].numpy(), prev_action[0].numpy())
        np.testing.assert_allclose(action[0], want, atol=1e-6)
        latent, prev_action = after, action


def test_the_file_passes_the_public_kit(folder):
    check_policy(folder)


@pytest.mark.slow
def test_a_file_of_twelve_million_parameters_agrees_with_torch_too(shaken):
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    config = presets.make("dreamer_v3", "12m")
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    shaken(agent, 1)
    export = PolicyExporter(agent, spec, config).export(0, 0, 0, golden_steps=60)
    runner = PolicyRunner.from_bytes(export.onnx)
    assert check_golden(export.golden, runner.card, runner.call) <= PARITY


def test_a_file_whose_encoder_takes_patches_agrees_with_torch_too(shaken):
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    config = changed(presets.make("dreamer_v3", "micro"), world={"encoder": {"kind": "patch"}})
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    shaken(agent, 1)
    export = PolicyExporter(agent, spec, config).export(0, 0, 0, golden_steps=20)
    runner = PolicyRunner.from_bytes(export.onnx)
    assert check_golden(export.golden, runner.card, runner.call) <= PARITY
