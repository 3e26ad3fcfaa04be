"""Rates, clipping and stages: what each part of an agent is trained with, and when."""

from __future__ import annotations

import pytest
import torch

from wm_core import presets
from wm_core.agents.optimizers import Optimizers
from wm_core.agents.settings import OptimConfig
from wm_core.nn.optim import ParameterGroup


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def owners(agent):
    """id of a weight -> the part that it belongs to."""
    groups = agent.world.parameter_groups() | agent.behavior.parameter_groups()
    return {id(p): name for name, group in groups.items() for p in group.parameters}


def rows(agent):
    """(parts, rate) of each Adam of ``agent``."""
    own = owners(agent)
    return [
        (
            {own[id(p)] for group in adam.param_groups for p in group["params"]},
            {group["lr"] for group in adam.param_groups},
        )
        for adam in agent.optimizers._all
    ]


MODEL = {"representation", "dynamics"}
ROWS = {
    "dreamer_v1": [(MODEL, 6e-4), ({"actor"}, 8e-5), ({"critic"}, 8e-5)],
    "dreamer_v2": [(MODEL, 3e-4), ({"actor"}, 8e-5), ({"critic"}, 8e-5)],
    "transdreamer": [(MODEL, 2e-4), ({"actor"}, 4e-5), ({"critic"}, 1e-4)],
    "twm": [
        ({"representation"}, 1e-4), ({"dynamics"}, 1e-4), ({"actor"}, 1e-4), ({"critic"}, 1e-5),
    ],
    "s4wm": [(MODEL, 1e-4), ({"actor"}, 3e-5), ({"critic"}, 3e-5)],
    "world_models": [({"representation"}, 1e-4), ({"dynamics"}, 1e-3)],
}  # fmt: skip


@pytest.mark.parametrize("preset", ROWS)
def test_each_part_is_trained_at_the_rate_of_its_paper(preset, small):
    paper = presets.make(preset, "paper").optim.model_dump()
    agent = small(preset, optim=paper | {"precision": "float32", "stages": None}).agent()
    assert rows(agent) == [(parts, {rate}) for parts, rate in ROWS[preset]]


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_trained_weight_has_one_optimiser(preset, small):
    agent = small(preset).agent()
    trained = {id(p) for p in agent.parameters() if p.requires_grad}
    assert set(owners(agent)) == trained
    groups = [group for one in agent.optimizers._all for group in one.param_groups]
    stepped = [id(p) for group in groups for p in group["params"]]
    assert sorted(stepped) == sorted(trained)


def test_one_laprop_over_everything_is_one_group(small):
    agent = small("dreamer_v3").agent()
    (laprop,) = agent.optimizers._all
    (group,) = laprop.param_groups
    assert {owners(agent)[id(p)] for p in group["params"]} == {*MODEL, "actor", "critic"}


def test_the_recurrence_of_a_state_space_does_not_decay(small):
    agent = small("s4wm", optim={"kind": "adam", "decay": 0.1, "dynamics_lr": 1e-3}).agent()
    names = {id(p): n for n, p in agent.named_parameters()}
    undecayed = {
        names[id(p)].split(".ssm.")[1]
        for adam in agent.optimizers._all
        for group in adam.param_groups
        if group["weight_decay"] == 0.0
        for p in group["params"]
    }
    assert undecayed == {"log_step.weight", "log_decay", "frequency", "drive.weight"}


# ------------------------------------------------------------------ one step by hand


class Parts:
    """Two weights with an optimiser of their own each."""

    def __init__(self, **config):
        given = {"kind": "adam", "lr": 0.1, "actor_lr": 0.2, "warmup": 0, "eps": 1e-8}
        self.world = torch.nn.Linear(1, 1, bias=False)
        self.actor = torch.nn.Linear(1, 1, bias=False)
        for net in (self.world, self.actor):
            net.weight.data.fill_(1.0)
        parts = {"dynamics": ParameterGroup.of(self.world), "actor": ParameterGroup.of(self.actor)}
        self.optimizers = Optimizers(parts, self.world, OptimConfig(**given | config))

    def step(self, world=3.0, actor=4.0):
        """One update whose gradients are ``world`` and ``actor``."""
        loss = (world * self.world.weight + actor * self.actor.weight).sum()
        self.optimizers.step(loss)
        return self.world.weight.item(), self.actor.weight.item()


def test_a_first_step_of_adam_has_the_length_of_its_part_s_rate():
    assert Parts().step() == pytest.approx((0.9, 0.8))


@pytest.mark.parametrize("kind", ["adam", "laprop"])
def test_rates_warm_up_linearly_and_then_stay(kind):
    parts, before = Parts(kind=kind, warmup=4, agc=1e9), (1.0, 1.0)
    for n in range(1, 7):
        now = parts.step()
        share = min(1.0, n / 4)
        moved = [a - b for a, b in zip(before, now, strict=True)]
        assert moved == pytest.approx([0.1 * share, 0.2 * share], rel=1e-3)
        before = now


@pytest.mark.parametrize("kind", ["adam", "laprop"])
def test_the_reported_gradient_norm_is_that_before_clipping(kind):
    parts = Parts(kind=kind, clip=0.1, behavior_clip=0.1, agc=1e-3)
    parts.step(3.0, 4.0)
    assert parts.optimizers.gradient.item() == pytest.approx(5.0)


def test_model_and_behaviour_are_clipped_each_to_its_own_norm():
    """An eps so large that a step shows the size of its gradient."""
    parts = Parts(clip=0.5, behavior_clip=100.0, eps=1.0)
    world, actor = parts.step(3.0, 4.0)
    assert 1.0 - world == pytest.approx(0.1 * 0.5 / 1.5, rel=1e-4)
    assert 1.0 - actor == pytest.approx(0.2 * 4.0 / 5.0, rel=1e-4)


def test_what_a_loss_does_not_reach_stays_and_does_not_decay():
    parts = Parts(decay=0.5)
    parts.optimizers.step(2.0 * parts.world.weight.sum())
    assert parts.actor.weight.item() == 1.0
    assert parts.world.weight.item() != 1.0


def test_decay_is_apart_from_the_gradient():
    parts = Parts(decay=0.5)
    world, _ = parts.step()
    assert world == pytest.approx(1.0 - 0.1 * 0.5 - 0.1)


# ------------------------------------------------------------------ stages


def test_stages_train_the_representation_then_the_dynamics_then_everything(small):
    parts = small("world_models", optim={"stages": (2, 2)}, world={"kl": {"free_nats": 0.0}})
    agent, batch = parts.agent(), parts.batch()
    sees = ("encoder.", "decoder.", "dynamics.posterior.")
    expected = [
        *[({"rep_loss", "recon_loss/image"}, "sees")] * 2,
        *[({"dyn_loss", "reward_loss", "cont_loss"}, "foresees")] * 2,
        ({"rep_loss", "recon_loss/image", "dyn_loss", "reward_loss", "cont_loss"}, "all"),
    ]
    for seed, (names, moving) in enumerate(expected):
        before = {n: p.clone() for n, p in agent.world.named_parameters()}
        acts = agent.behavior.actor.linear.weight.clone()
        metrics, _ = agent.update(batch, None, seeded(seed))
        assert {n for n in metrics if "_loss" in n} == names
        moved = {n for n, p in agent.world.named_parameters() if not torch.equal(p, before[n])}
        seeing = {n for n in before if n.startswith(sees)}
        allowed = {"sees": seeing, "foresees": set(before) - seeing, "all": set(before)}[moving]
        assert moved
        assert moved <= allowed
        if seed in (1, 3):  # nothing is hidden behind zeros any more
            assert moved == allowed
        searched = not torch.equal(agent.behavior.actor.linear.weight, acts)
        assert searched == (moving == "all") == ("generation" in metrics)


def test_without_stages_all_is_learnt_from_the_first_update(small):
    parts = small("world_models")
    metrics, _ = parts.agent().update(parts.batch(), None, seeded())
    assert {"rep_loss", "dyn_loss", "generation"} <= set(metrics)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_encoder_decoder_and_posterior_are_the_representation(preset, small):
    agent = small(preset).agent()
    own, sees = owners(agent), ("encoder.", "decoder.", "projection.", "dynamics.posterior.")
    for name, weight in agent.world.named_parameters():
        assert own[id(weight)] == ("representation" if name.startswith(sees) else "dynamics"), name
