"""What the states of a dream weigh, where the record says that its start was an end."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("cont", [True, False])
@pytest.mark.parametrize("fold", [True, False])
def test_a_dream_from_a_recorded_end_counts_for_nothing_where_the_record_decides(fold, cont, play):
    """Without a head for ends nothing is weighted, as in DreamerV2's code."""
    world = {"fold_discount": fold, "heads": {"cont": cont, "reward": "normal"}}
    game = play(gradient="reinforce", start_weight="recorded", world=world)
    game.batch.is_terminal[1, 3] = True
    weights = {}
    for start in ("predicted", "recorded"):
        behavior = game.behavior
        behavior.config = behavior.config.model_copy(update={"start_weight": start})
        told = torch.full((10, 5), 0.5)
        weights[start] = behavior._with_recorded_start(
            told, game.batch, torch.arange(5), game.world
        )
        assert torch.equal(weights[start][:, 1:], told[:, 1:])
    first = torch.ones(10)
    first[5 + 3] = 0.0  # window 1, time 3
    expected = first * (0.9 if fold else 1.0) if cont else torch.full((10,), 0.5)
    torch.testing.assert_close(weights["recorded"][:, 0], expected)
    assert (weights["predicted"] == 0.5).all()
