"""A model whose dreams follow from start and actions alone imagines no further than it sees."""

import pytest
import torch

from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.presets.micro import merged
from wm_core.world.latent import Latent

WINDOW = 8
TRANSFORMER = {
    "backbone": "transformer",
    # of several layers the later ones would still know the start from what saw it
    "transformer": {
        "width": 12,
        "layers": 1,
        "heads": 2,
        "head": 4,
        "hidden": 16,
        "window": WINDOW,
    },
}
ACTIONS = merged(TRANSFORMER, {"transformer": {"tokens": "actions", "positions": "sinusoid"}})


def imagined(world, start, steps):
    """(1, D) deter after so many steps with actions of zero, from ``start`` (1, S, K)."""
    posterior = Latent(torch.zeros(1, 1, world.config.sizes.deter), start.unsqueeze(1))
    latent = world.dynamics.imagination_starts(posterior, torch.tensor([0]))
    for _ in range(steps):
        uniform = torch.full((1, *world.dynamics.prior.noise_shape), 0.5)
        latent = world.imagine_step(latent, torch.zeros(1, 2), uniform)
    return latent.deter


@pytest.mark.parametrize(("steps", "knows"), [(WINDOW - 1, True), (WINDOW, False)])
def test_the_last_step_of_the_reach_is_the_last_that_knows_the_start(steps, knows, build):
    world = build(**ACTIONS)
    assert world.reach == WINDOW
    one, other = (torch.eye(4)[[index] * 3].unsqueeze(0) for index in (0, 2))
    with torch.no_grad():
        assert torch.equal(imagined(world, one, steps), imagined(world, other, steps)) != knows


def test_other_models_imagine_as_far_as_is_wanted(build):
    assert [build(**kind).reach for kind in ({}, TRANSFORMER, {"backbone": "ssm"})] == [None] * 3


@pytest.mark.parametrize("ahead", [WINDOW - 1, WINDOW])
def test_a_rollout_beyond_the_reach_is_refused(ahead, build, generator):
    world, steps = build(**ACTIONS), 2 + ahead
    flag = torch.zeros(1, steps, dtype=torch.bool)
    batch = Batch(
        obs={
            "image": torch.zeros(1, steps, 16, 16, 3, dtype=torch.uint8),
            "joints": torch.zeros(1, steps, 3),
        },
        prev_action=torch.zeros(1, steps, 2),
        reward=torch.zeros(1, steps),
        is_first=flag, is_last=flag, is_terminal=flag,
    )  # fmt: skip
    start = world.dynamics.initial(1)
    if ahead < WINDOW:
        assert world.open_loop(batch, start, 2, generator)["joints"].shape == (1, steps, 3)
        return
    with pytest.raises(SettingsError, match=f"at most {WINDOW - 1} imagined steps.*got {WINDOW}"):
        world.open_loop(batch, start, 2, generator)
