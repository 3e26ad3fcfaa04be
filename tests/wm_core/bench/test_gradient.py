"""A reward's gradient over the steps of a dream, against cases that can be done by hand."""

from __future__ import annotations

import json

import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.bench.gradient import (
    dreamt,
    from_start,
    make_dream,
    random_reading,
    reward_gradients,
    run,
)
from wm_core.bench.learner import random_batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.presets import make
from wm_core.presets.micro import changed

N, H = 3, 6
TRANSFORMER = {"width": 16, "layers": 2, "heads": 2, "head": 8, "hidden": 16, "window": 16}
#: recurrent, state space, of a history of states, of actions alone
KINDS = {
    "gru": ("dreamer_v3", {"gru": {"deter": 16, "hidden": 8, "blocks": 2}}),
    "token_gru": (
        "dreamer_v3",
        {"backbone": "token_gru", "token_gru": {"deter": 16, "hidden": 8}},
    ),
    "ssm": ("s4wm", {"ssm": {"deter": 16, "state": 8, "layers": 2, "blocks": 2}}),
    "history": ("transdreamer", {"transformer": TRANSFORMER}),
    "actions": ("awm", {"transformer": TRANSFORMER}),
}


def dream_of(kind, latent="gaussian"):
    """The untrained world model of ``kind``, a dream in it, and a reading of its latents."""
    preset, world = KINDS[kind]
    config = changed(
        make(preset, "micro"),
        world={
            "latent": latent, "gaussian": {"size": 5}, "categorical": {"groups": 2, "classes": 3},
            "encoder": {"depth": 2}, "units": 8, "posterior": {"units": 8}, "net": {"units": 8},
            "heads": {"bins": 41}, **world,
        },
        replay={"batch": 2, "length": 9},
        behavior={"imag_horizon": H},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    spec = Spec(action=ActionSpec(low=(-1.0,) * 6, high=(1.0,) * 6))
    agent = AgentCore(spec, config, generator=generator)
    dream = make_dream(agent, random_batch(config, generator), N, H, generator)
    return agent.world, dream, random_reading(agent.world, generator)


def test_a_linear_model_has_the_gradient_of_the_textbook():
    """h' = h / 2 + (3, 4) a and reward 2 h: every step further back halves 2 |(3, 4)| = 10."""

    def rewards(action):
        h, out = torch.zeros(len(action)), []
        for t in range(action.shape[1]):
            h = h / 2 + action[:, t] @ torch.tensor([3.0, 4.0])
            out.append(2 * h)
        return torch.stack(out, 1)

    norms = reward_gradients(rewards, torch.rand(2, 3, 2))
    expected = torch.tensor([[10.0, 0.0, 0.0], [5.0, 10.0, 0.0], [2.5, 5.0, 10.0]])
    torch.testing.assert_close(norms, expected.expand(2, 3, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_is_the_slope_of_the_reward_along_the_gradient(kind):
    world, dream, read = dream_of(kind)
    norms = from_start(world, dream, read)
    action = dream.action.clone().requires_grad_()
    last = read(dreamt(world, dream, action))[:, -1]
    (gradient,) = torch.autograd.grad(last.sum(), action)
    ahead = torch.zeros_like(action)
    ahead[:, 0] = gradient[:, 0] / gradient[:, 0].norm(dim=-1, keepdim=True)
    step = 2e-2
    with torch.no_grad():
        up, down = (read(dreamt(world, dream, dream.action + s * ahead)) for s in (step, -step))
    torch.testing.assert_close(norms[:, -1], (up - down)[:, -1] / (2 * step), rtol=0.05, atol=2e-4)
    assert (norms > 0).all()


@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_reward_depends_on_what_is_done_after_it(kind, latent):
    world, dream, read = dream_of(kind, latent)
    norms = reward_gradients(lambda action: read(dreamt(world, dream, action)), dream.action)
    after = torch.triu(torch.ones(H, H, dtype=torch.bool), diagonal=1)
    assert not norms[:, after].any()
    assert (norms[:, ~after] > 0).all()


def test_no_weight_keeps_a_gradient():
    world, dream, read = dream_of("gru")
    from_start(world, dream, read)
    assert all(p.grad is None and p.requires_grad for p in world.dynamics.parameters())


def test_the_figures_have_their_documented_names(capsys):
    assert run(["--json", "--presets", "awm", "--horizon", "3", "--starts", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    figures = {line["name"]: line["value"] for line in lines[1:]}
    assert [*figures] == [
        "gradient/awm/micro/parameters",
        *(f"gradient/awm/micro/step_{k}" for k in (1, 2, 3)),
    ]
    assert all(value > 0 for value in figures.values())


def test_a_dream_longer_than_the_window_of_actions_is_refused():
    with pytest.raises(SettingsError, match="--horizon 32: expected less than the 32 tokens"):
        run(["--json", "--presets", "awm", "--horizon", "32", "--starts", "2"])
