"""Several choices at once are each learnt: of each, the one that is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wm_core.conftest import shrink
from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec

pytestmark = pytest.mark.long

EPISODE, GAMES = 4, 16


class Digits:
    """N games side by side: each shows a digit for every choice, and wants them chosen.

    The reward of a step is the share of the choices that are the digits shown.
    """

    def __init__(self, action: ActionSpec, n: int, rng: np.random.Generator) -> None:
        self.action, self.n, self.rng = action, n, rng

    def reset(self) -> np.ndarray:
        """(N, A) what is shown: the one-hot of a digit for every choice."""
        self.shown = np.stack([self.action.random(self.rng) for _ in range(self.n)])
        return self.shown

    def step(self, action: np.ndarray) -> np.ndarray:
        """(N,) rewards of actions (N, A)."""
        return (action * self.shown).sum(-1) / len(self.action.sizes)


def play(agent, games, generator, *, mean: bool) -> Batch[torch.Tensor]:
    """One episode of every game, as windows (N, EPISODE + 1)."""
    carry, action = agent.initial(games.n), torch.zeros(games.n, games.action.size)
    shown, reward = torch.from_numpy(games.reset()), torch.zeros(games.n)
    rows = []
    for t in range(EPISODE + 1):
        first = torch.full((games.n,), t == 0)
        rows.append((action, reward, first))
        chosen, carry = agent.act(
            {"digits": shown}, carry, action, first, mean=mean, generator=generator
        )
        action, reward = chosen, torch.from_numpy(games.step(chosen.numpy())).float()
    prev_action, rewards, is_first = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    is_last = torch.zeros_like(is_first)
    is_last[:, -1] = True
    obs = {"digits": shown.unsqueeze(1).expand(-1, EPISODE + 1, -1)}
    return Batch(obs, prev_action, rewards, is_first, is_last, torch.zeros_like(is_last))


def joined(batches: list[Batch[torch.Tensor]], rows: torch.Tensor) -> Batch[torch.Tensor]:
    """The windows ``rows`` of all that was played."""

    def column(name):
        return torch.cat([getattr(batch, name) for batch in batches])[rows]

    obs = {"digits": torch.cat([batch.obs["digits"] for batch in batches])[rows]}
    names = ("prev_action", "reward", "is_first", "is_last", "is_terminal")
    return Batch(obs, *(column(name) for name in names))


@pytest.mark.parametrize(
    "groups",
    [(3, 2), pytest.param((2, 2, 2), marks=pytest.mark.slow)],
    ids=["MultiDiscrete", "MultiBinary"],
)
def test_every_choice_learns_to_be_the_digit_that_is_shown_for_it(groups):
    torch.set_num_threads(1)
    action = ActionSpec.several_choices(groups)
    spec = Spec(images={}, vectors={"digits": VectorSpec(size=action.size)}, action=action)
    config = shrink(
        presets.make("dreamer_v3", "micro"),
        world={"discount_horizon": 5.0},
        behavior={"imag_horizon": 3, "imag_starts": None},
        optim={"lr": 4e-3, "warmup": 0},
    )
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    agent = AgentCore(spec, config, generator=generator)
    games, life = Digits(action, GAMES, rng), []
    for episode in range(60):
        life.append(play(agent, games, generator, mean=False))
        for _ in range(8 if episode > 3 else 0):
            rows = torch.randint(GAMES * len(life), (16,), generator=generator)
            agent.update(joined(life, rows), None, generator)
        if episode >= 29 and episode % 10 == 9:
            trained = play(agent, Digits(action, 200, rng), generator, mean=True)
            right = (trained.prev_action * trained.obs["digits"])[:, 1:]
            shares = [float(part.sum(-1).mean()) for part in right.split(groups, -1)]
            if min(shares) > 0.8:  # chance: a third or half
                return
    pytest.fail(f"chose the digit shown in these shares, for each choice: {shares}")
