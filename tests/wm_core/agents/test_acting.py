"""Acting: what is drawn, what noise is added while collecting, and what need not be carried."""

from __future__ import annotations

import pytest
import torch

from wm_core.exporting.policy_module import PolicyStep

N = 2000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def act(parts, agent, *, mean=False, n=N, seed=0, carry=None):
    """(n, A) actions of ``n`` environments that all see one image."""
    image = torch.randint(0, 256, (1, 16, 16, 3), generator=seeded(5), dtype=torch.uint8)
    obs = {"image": image.expand(n, -1, -1, -1)}
    none = torch.zeros(n, parts.spec.action.size)
    first = torch.ones(n, dtype=torch.bool)
    carry = agent.initial(n) if carry is None else carry
    return agent.act(obs, carry, none, first, mean=mean, generator=seeded(seed))


def test_exploration_noise_is_added_and_clipped_but_not_to_the_mean(small):
    parts = small("world_models", behavior={"explore_noise": 0.4})
    agent = parts.agent()
    actor = agent.behavior.actor
    actor.take(torch.tensor([0.2, 2.0] + [0.0] * (actor.parameters_count - 2)))
    certain = torch.tensor([0.2, 2.0]).tanh()
    torch.testing.assert_close(act(parts, agent, mean=True)[0], certain.expand(N, 2))
    drawn = act(parts, agent)[0]
    assert drawn.abs().max() <= 1
    assert drawn[:, 0].mean().item() == pytest.approx(certain[0].item(), abs=0.03)
    assert drawn[:, 0].std().item() == pytest.approx(0.4, abs=0.03)
    # what lies beyond 1 is cut: more than a third, as the middle is there almost
    share = 1 - torch.distributions.Normal(certain[1], 0.4).cdf(torch.tensor(1.0))
    assert (drawn[:, 1] == 1).float().mean().item() == pytest.approx(share.item(), abs=0.04)


def test_exploration_of_choices_replaces_some_by_random_ones(small):
    parts = small("world_models", discrete=True, behavior={"explore_noise": 0.3})
    agent = parts.agent()
    actor = agent.behavior.actor
    actor.take(torch.tensor([0.0, 99.0] + [0.0] * (actor.parameters_count - 2)))
    drawn = act(parts, agent)[0]
    assert torch.equal(drawn.sum(-1), torch.ones(N))
    expected = torch.tensor([0.1, 0.8, 0.1])  # a third of the random ones are the best, too
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.03, rtol=0)
    sure = act(parts, agent, mean=True)[0]
    assert torch.equal(sure, torch.tensor([0.0, 1.0, 0.0]).expand(N, 3))


@pytest.mark.parametrize("preset", ["twm", "awm"])
def test_an_actor_that_reads_stoch_needs_no_carry(preset, small):
    parts = small(preset)
    agent = parts.agent()
    agent.update(parts.batch(), None, seeded())
    assert not agent.has_memory
    first, carried = act(parts, agent, n=4)
    second, _ = act(parts, agent, n=4, carry=carried)
    assert torch.equal(first, second)


def test_an_actor_that_reads_feat_acts_by_its_carry(small):
    parts = small("dreamer_v3")
    agent = parts.agent()
    with torch.no_grad():  # an untrained actor hardly reads
        agent.behavior.actor.mean.weight.mul_(100.0)
    obs = {"image": torch.zeros(4, 16, 16, 3, dtype=torch.uint8)}
    none, going = torch.zeros(4, 2), torch.zeros(4, dtype=torch.bool)
    _, carried = act(parts, agent, n=4)
    with_past, _ = agent.act(obs, carried, none, going, mean=True, generator=seeded())
    without, _ = agent.act(obs, agent.initial(4), none, going, mean=True, generator=seeded())
    reset, _ = agent.act(obs, carried, none, ~going, mean=True, generator=seeded())
    assert not torch.equal(with_past, without)
    assert torch.equal(reset, without)


@pytest.mark.parametrize("preset", ["dreamer_v3", "awm", "world_models"])
def test_a_policy_that_acts_by_the_likeliest_latents_does_not_ask_their_noise(preset, small):
    """As TWM's code acts; in training, latents are drawn all the same."""
    told = {}
    for acting in ("draw", "mode"):
        parts = small(preset, world={"acting": acting})
        agent = parts.agent()
        _, carries = zip(
            *(act(parts, agent, mean=True, n=2, seed=s) for s in range(8)), strict=True
        )
        drawn = [carry.stoch for carry in carries]
        told[acting] = all(torch.equal(drawn[0], other) for other in drawn)
        step = PolicyStep(agent, parts.spec)
        arguments = [
            torch.rand(i.shape) if i.dtype == "float32" else _still(i) for i in step.inputs()
        ]
        at = [i.name for i in step.inputs()].index("noise_latent")
        outputs = []
        for seed in range(8):
            arguments[at] = torch.rand(arguments[at].shape, generator=seeded(seed))
            outputs.append(torch.cat([o.flatten() for o in step(*arguments)]))
        assert told[acting] == all(torch.equal(outputs[0], other) for other in outputs)
    assert told == {"draw": False, "mode": True}


def _still(info):
    return torch.zeros(info.shape, dtype=getattr(torch, info.dtype))


def test_the_mode_of_a_categorical_latent_is_its_likeliest_class(small):
    parts = small("twm")
    assert parts.config.world.acting == "mode"
    agent = parts.agent()
    _, carry = act(parts, agent, mean=True, n=3)
    expected = torch.nn.functional.one_hot(carry.params.argmax(-1), carry.params.shape[-1])
    assert torch.equal(carry.stoch, expected.float())
