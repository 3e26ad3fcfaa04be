"""Where gradients are staged, what rewards teach the critic leaves the latents alone."""

from __future__ import annotations

import pytest

STAGED = {"gradients": "staged", "decoder": {"reads": "stoch"}}


def reached(game):
    """Whether the loss of recorded rewards has a gradient for the encoder, and for the critic."""
    game.made().losses["replay_value_loss"].backward()
    encoding = [*game.world.encoder.parameters(), *game.world.dynamics.posterior.parameters()]
    learning = game.behavior.critic.fast.parameters()
    return tuple(any(p.grad is not None for p in part) for part in (encoding, learning))


@pytest.mark.parametrize("reads", ["feat", "stoch"])
@pytest.mark.parametrize("kind", ["joint", "ssm", "lstm"])
def test_recorded_rewards_reach_encoder_and_posterior_only_where_gradients_are_joint(
    kind, reads, play
):
    replayed = {"reads": reads, "critic": {"replay_scale": 0.5}}
    assert reached(play(kind, world=STAGED, **replayed)) == (False, True)
    assert reached(play(kind, **replayed)) == (True, True)


def test_where_gradients_are_staged_the_backbone_still_learns_from_recorded_rewards(play):
    game = play("lstm", world=STAGED, critic={"replay_scale": 0.5})
    game.made().losses["replay_value_loss"].backward()
    assert all(p.grad is not None for p in game.world.dynamics.backbone.parameters())
