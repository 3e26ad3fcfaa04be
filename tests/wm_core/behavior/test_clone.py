"""Which recorded actions are cloned, how much they weigh, and what of the agent they reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from wm_core.behavior.clone import clone_loss, cloned_steps
from wm_core.behavior.settings import BehaviorConfig, CloneConfig
from wm_core.contract.batch import Batch
from wm_core.nn.dists import Normal


def batch_of(action, is_first, **flags):
    """One window of steps that are led to by ``action``."""
    prev, none = torch.tensor(action)[None, :, None], torch.zeros(1, len(action), dtype=torch.bool)
    first = torch.tensor(is_first)[None].bool()
    more = {name: torch.tensor(value)[None].bool() for name, value in flags.items()}
    return Batch({}, prev, none.float(), first, none, none, **more)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("all", [1, 1, 0, 1]),  # no action leads from an episode's last step to the next episode
        ("demonstrations", [1, 0, 0, 0]),
        ("interventions", [0, 1, 0, 0]),
        ("both", [1, 1, 0, 0]),
    ],
)
def test_the_steps_that_are_cloned_are_those_that_the_settings_name(steps, expected):
    batch = batch_of(
        [0.0, 0.1, 0.2, 0.0, 0.4],
        [1, 0, 0, 1, 0],
        is_demonstration=[1, 0, 1, 0, 0],
        is_intervention=[0, 1, 0, 0, 1],
    )
    assert cloned_steps(batch, CloneConfig(steps=steps)).tolist() == [expected]


def test_a_batch_that_says_nothing_of_interventions_has_none():
    batch = batch_of([0.0, 0.1], [1, 0])
    assert cloned_steps(batch, CloneConfig(steps="both")).tolist() == [[0]]


def test_the_loss_is_the_mean_over_cloned_steps_of_the_next_step_s_previous_action():
    batch = batch_of([9.0, 0.5, 0.0, -0.5], [1, 0, 1, 0])
    mean = torch.zeros(1, 3, 1)
    dist = Normal(mean, torch.ones(1, 3, 1))
    config = CloneConfig(scale=2.0)
    each = -torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor([0.5, -0.5]))
    torch.testing.assert_close(clone_loss(dist, batch, config), 2.0 * each.mean())
    nothing = clone_loss(dist, batch, CloneConfig(scale=2.0, steps="interventions"))
    assert float(nothing) == 0.0


@pytest.mark.parametrize("discrete", [False, True])
def test_cloning_reaches_the_actor_alone_and_changes_nothing_where_it_is_off(play, discrete):
    game = play(discrete=discrete, clone={"scale": 1.0}, gradient="reinforce")
    if discrete:
        chosen = torch.nn.functional.one_hot(torch.zeros(2, 5, dtype=torch.long), 3).float()
        game.batch = replace(game.batch, prev_action=chosen)
    made = game.made()
    made.losses["clone_loss"].backward()
    reached = {
        name
        for module, part in ((game.world, "world"), (game.behavior, "behavior"))
        for name, p in ((f"{part}.{n}", p) for n, p in module.named_parameters())
        if p.grad is not None and bool(p.grad.any())
    }
    assert reached
    assert all(name.startswith("behavior.actor.") for name in reached)
    plain = play(discrete=discrete, gradient="reinforce")
    plain.batch = game.batch
    without = plain.made()
    assert "clone_loss" not in without.losses
    for name, loss in without.losses.items():
        assert torch.equal(loss, made.losses[name]), name


def test_a_behavior_without_gradients_cannot_clone():
    with pytest.raises(ValidationError, match="needs a behavior that learns by gradients"):
        BehaviorConfig(learner="evolution", clone={"scale": 0.1})
