"""Every system learns: on a tiny pixel task it beats itself untrained, whatever the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.presets.micro import changed

pytestmark = pytest.mark.long

SIZE, EPISODE = 16, 12
SPEC = Spec(
    images={"image": ImageSpec(height=SIZE, width=SIZE)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)


class Dots:
    """N games side by side: move the green bar to the middle, where the red one stands.

    The reward of a step is 1 in the middle, falling to 0 at the image's edge.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = n

    def reset(self) -> np.ndarray:
        """(N, H, W, 3) uint8 first images."""
        self.own, self.goal = self.rng.uniform(0, 1, self.n), np.full(self.n, 0.5)
        return self.images()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, H, W, 3) uint8 images and (N,) rewards after moving by (N, 1) actions."""
        self.own = np.clip(self.own + 0.25 * action[:, 0], 0, 1)
        reward = np.clip(1 - 2 * np.abs(self.own - self.goal), 0, 1)
        return self.images(), reward.astype(np.float32)

    def images(self) -> np.ndarray:
        """(N, H, W, 3) uint8: two bars, smeared so that positions are continuous."""
        pixel = np.linspace(0, 1, SIZE)
        image = np.zeros((self.n, SIZE, SIZE, 3), np.uint8)
        for rows, channel, at in ((slice(0, 8), 1, self.own), (slice(8, 16), 0, self.goal)):
            glow = np.exp(-(((pixel - at[:, None]) / 0.1) ** 2)) * 255
            image[:, rows, :, channel] = glow.astype(np.uint8)[:, None]
        return image


def tiny(preset: str) -> Config:
    """The micro preset, shrunk to what this task needs.

    The image has a sixteenth of the pixels over which the loss is meant to be summed, hence its
    scale; what it holds is worth a nat or two, hence the free nats.
    """
    config = presets.make(preset, "micro")
    free_nats = {"dreamer_v1": 0.2, "world_models": 2.0}.get(preset, config.world.kl.free_nats)
    world = {
        "gru": {"deter": 64, "hidden": 64},
        "lstm": {"deter": 64, "hidden": 64},
        "transformer": {"width": 64, "layers": 2, "heads": 2, "head": 32, "hidden": 128},
        "ssm": {"deter": 64, "state": 32, "layers": 2, "blocks": 4},
        "categorical": {"groups": 8, "classes": 8},
        "gaussian": {"size": 8},
        "posterior": {"units": 64},
        "net": {"units": 64},
        "units": 64,
        "recon": {"scale": 8.0 * config.world.recon.scale},
        "discount_horizon": 20.0,
        "kl": {"free_nats": free_nats},
    }
    optim = {"lr": 2e-3}
    if config.optim.actor_lr is not None:
        optim = {"lr": 1e-3, "actor_lr": 2e-4, "critic_lr": 5e-4}
    behavior: dict = {"imag_horizon": 8}
    if config.behavior.learner == "evolution":
        behavior |= {"evolution": {"population": 16, "rollouts": 16, "every": 2, "sigma": 0.5}}
        optim |= {"dynamics_lr": 2e-3, "stages": (100, 100)}
    return changed(config, world=world, behavior=behavior, optim=optim)


class Life:
    """Everything that N games side by side saw and did, as (N, time, ...) arrays."""

    def __init__(self, n: int, steps: int) -> None:
        self.image = np.zeros((n, steps, SIZE, SIZE, 3), np.uint8)
        self.prev_action = np.zeros((n, steps, 1), np.float32)
        self.reward = np.zeros((n, steps), np.float32)
        self.is_first = np.zeros((n, steps), bool)
        self.steps = 0

    def batch(self, size: int, length: int, rng: np.random.Generator) -> Batch[torch.Tensor]:
        """Windows (B, T); they start from a latent of zeros."""
        row = rng.integers(0, len(self.reward), size)[:, None]
        at = rng.integers(0, self.steps - length + 1, size)[:, None] + np.arange(length)
        first = torch.from_numpy(self.is_first[row, at])
        last = np.roll(self.is_first, -1, 1)[row, at]
        return Batch(
            obs={"image": torch.from_numpy(self.image[row, at])},
            prev_action=torch.from_numpy(self.prev_action[row, at]),
            reward=torch.from_numpy(self.reward[row, at]),
            is_first=first,
            is_last=torch.from_numpy(last),
            is_terminal=torch.zeros_like(first),
        )


def play(agent, games: Dots, generator, *, mean: bool, life: Life | None = None) -> float:
    """Mean return of one episode of every game; what happened is added to ``life``."""
    carry, total = agent.initial(games.n), np.zeros(games.n)
    image, reward = games.reset(), np.zeros(games.n, np.float32)
    action = np.zeros((games.n, 1), np.float32)
    for t in range(EPISODE):
        first = np.full(games.n, t == 0)
        if life is not None:
            now = life.steps
            life.image[:, now], life.prev_action[:, now] = image, action
            life.reward[:, now], life.is_first[:, now] = reward, first
            life.steps += 1
        obs = {"image": torch.from_numpy(image)}
        chosen, carry = agent.act(
            obs,
            carry,
            torch.from_numpy(action),
            torch.from_numpy(first),
            mean=mean,
            generator=generator,
        )
        action = chosen.numpy()
        image, reward = games.step(action)
        total += reward
    return float(total.mean())


#: one of each backbone runs in `make test`; all with three seeds are slow
QUICK = {("dreamer_v3", 0), ("twm", 0), ("s4wm", 0), ("world_models", 0)}


@pytest.mark.parametrize(
    ("preset", "seed"),
    [
        pytest.param(p, seed, marks=[] if (p, seed) in QUICK else pytest.mark.slow)
        for p in presets.PRESETS
        for seed in range(3)
    ],
)
def test_an_agent_beats_itself_untrained(preset, seed):
    """It ends as soon as that is shown; looking takes no part in the training."""
    torch.set_num_threads(1)
    config, episodes = tiny(preset), 55
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    agent = AgentCore(SPEC, config, generator=generator)
    games, life = Dots(8, seed), Life(8, episodes * EPISODE)
    untrained = play(agent, Dots(64, 100 + seed), generator, mean=False)
    for episode in range(episodes):
        play(agent, games, generator, mean=False, life=life)
        for _ in range(10 if episode >= 4 else 0):
            agent.update(life.batch(16, 12, rng), None, generator)
        if episode >= 24 and episode % 10 == 4:
            draws = torch.Generator().manual_seed(seed)
            trained = play(agent, Dots(64, 200 + seed), draws, mean=True)
            if trained > untrained + 2.0:
                return
    pytest.fail(f"untrained {untrained:.2f}, trained {trained:.2f}: expected 2.0 more")
