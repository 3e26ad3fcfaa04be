"""A behaviour from outside, with a carry of its own, learns and is exported like our own."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field
from torch import nn

from wm_core import presets
from wm_core.behavior.base import Behavior, BehaviorLosses, Choice, Estimate, PolicyHead
from wm_core.behavior.settings import BEHAVIORS, BehaviorConfig
from wm_core.cli.settings import parse
from wm_core.cli.train import with_registered
from wm_core.config import Config
from wm_core.contract.golden import PARITY, check_golden, read_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Frozen
from wm_core.exporting.exporter import PolicyExporter
from wm_core.nn.blocks import Linear
from wm_core.nn.optim import ParameterGroup

pytestmark = pytest.mark.long


class LinearTDConfig(Frozen):
    """Settings of the behaviour below."""

    discount: float = Field(0.9, ge=0, le=1, description="Factor per agent step of later rewards")
    smoothing: float = Field(0.5, ge=0, le=1, description="Share of the last action that is kept")
    lr: float = Field(0.05, gt=0, description="Learning rate of its weights, above 0")


class LinearTDHead(PolicyHead):
    """Acts by a linear policy whose actions are smoothed over time: a carry of its own."""

    def __init__(self, policy, value, actions, smoothing):
        super().__init__()
        self.policy, self.value, self.smoothing = policy, value, smoothing
        self.noise_shape, self.carry = (actions,), {"smoothed": (actions,)}
        self.estimates = {"value": "expected discounted return, in units of reward"}

    def choose(self, latent, carry, uniform):
        wanted = torch.tanh(self.policy(latent.feat))
        if uniform is not None:
            wanted = wanted + 0.1 * (uniform - 0.5)
        action = self.smoothing * carry[0] + (1.0 - self.smoothing) * wanted
        return Choice(action, (action,), part=latent.feat)

    def estimate(self, latent, choice):
        value = self.value(choice.part).squeeze(-1)
        return {"value": Estimate(value, value.abs())}


class LinearTD(Behavior):
    """Learns a linear value of latents by TD(0); its policy imitates the recorded actions."""

    def __init__(self, action, world, settings, *, seed):
        super().__init__()
        width = world.config.sizes.of("feat")
        self.settings, self.actions = settings, action.size
        self.policy, self.value = Linear(width, action.size), Linear(width, 1)

    def head(self, world):
        return LinearTDHead(self.policy, self.value, self.actions, self.settings.smoothing)

    def parameter_groups(self):
        return {"td": ParameterGroup.of(self)._replace(lr=self.settings.lr)}

    def loss(self, world, batch, posterior, generator):
        feat = posterior.feat.detach()
        value = self.value(feat).squeeze(-1)
        later = value[:, 1:].detach() * (~batch.is_terminal[:, 1:])
        error = batch.reward[:, 1:] + self.settings.discount * later - value[:, :-1]
        imitation = torch.tanh(self.policy(feat[:, :-1])) - batch.prev_action[:, 1:]
        losses = {"td_loss": error.square().mean(), "policy_loss": imitation.square().mean()}
        return BehaviorLosses(losses, {"value": value.mean().detach()})


@pytest.fixture
def parts(small, monkeypatch):
    monkeypatch.setattr(BEHAVIORS, "_registered", {})
    BEHAVIORS.register("linear_td", LinearTDConfig, LinearTD)
    return small("dreamer_v3", behavior={"learner": "linear_td"})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_its_settings_have_defaults_and_survive_a_file(parts):
    settings = parts.config.behavior
    assert settings.own["linear_td"] == LinearTDConfig()
    changed = BehaviorConfig(learner="linear_td", own={"linear_td": {"lr": 0.5}})
    assert changed.own["linear_td"].lr == 0.5
    assert BehaviorConfig.model_validate_json(changed.model_dump_json()) == changed


def test_a_command_line_chooses_it_and_its_settings(parts):
    words = ["--behavior.learner", "linear_td", "--behavior.own.linear-td.lr", "0.25"]
    start = presets.make("dreamer_v3", "micro")
    start = start.model_copy(update=with_registered(start, words))
    settings = parse(Config, words, verb="train", default=start)
    assert settings.behavior.learner == "linear_td"
    assert settings.behavior.own["linear_td"].lr == 0.25


def test_it_learns_at_its_own_rate_beside_the_world_model(parts):
    agent, batch = parts.agent(), parts.batch()
    rates = {g["lr"] for one in agent.optimizers._all for g in one.param_groups}
    assert rates == {parts.config.optim.lr, 0.05}
    told = [agent.update(batch, None, seeded(i))[0] for i in range(30)]
    assert told[-1]["policy_loss"] < told[0]["policy_loss"]
    assert {"recon_loss/image", "dyn_loss", "td_loss"} <= set(told[0])
    resumed = parts.agent(seed=1)
    resumed.load_state_dict(agent.state_dict())
    assert torch.equal(resumed.behavior.policy.weight, agent.behavior.policy.weight)


def test_its_carry_goes_round_and_is_forgotten_where_an_episode_begins(parts):
    agent, batch = parts.agent(), parts.batch()
    nn.init.ones_(agent.behavior.policy.weight)
    obs = {"image": batch.obs["image"][:2, 0]}
    none, carry = torch.zeros(2, 2), agent.initial(2)
    for first in ([True, True], [False, True]):
        action, carry = agent.act(
            obs, carry, none, torch.tensor(first), mean=True, generator=seeded()
        )
    assert torch.equal(carry.behavior[0], action)
    assert (action[0].abs() > action[1].abs()).all()  # half of the last action was kept


def test_it_is_exported_and_onnx_does_what_torch_does(parts):
    agent, batch = parts.agent(), parts.batch()
    agent.update(batch, None, seeded())
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=seeded(1)))
    export = PolicyExporter(agent, parts.spec, parts.config).export(1, 1, 0, 60)
    runner = PolicyRunner.from_bytes(export.onnx)
    assert check_golden(export.golden, runner.card, runner.call) <= PARITY
    assert [pair.input for pair in runner.card.carry] == ["deter", "stoch", "smoothed"]
    assert {"value", "next_smoothed", "surprise"} <= {o.name for o in runner.card.outputs}
    smoothed = read_golden(export.golden)["out/next_smoothed"]
    assert (smoothed[1:] != smoothed[:-1]).any()
