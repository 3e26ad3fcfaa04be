"""Worlds of a few numbers, smooth enough to differentiate by hand, and actors for them."""

from __future__ import annotations

import pytest
import torch

from wm_core.behavior.actor_critic import ActorCritic
from wm_core.behavior.settings import BehaviorConfig
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.nn.blocks import initialize
from wm_core.presets.micro import merged
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import WorldModel

B, T, A = 2, 5, 2
CONTINUOUS = ActionSpec(low=(-1.0,) * A, high=(1.0,) * A)
CHOICES = ActionSpec.choices(3)

TOKENS = {"width": 8, "layers": 2, "heads": 2, "head": 4, "hidden": 8, "window": 12}
LSTM = {"deter": 6, "hidden": 6}
KINDS = {
    "gru": {"gru": {"cell": "plain", "deter": 6, "hidden": 6}},
    "joint": {"backbone": "transformer", "transformer": TOKENS},
    "split": {"backbone": "transformer", "transformer": TOKENS | {"tokens": "split"}},
    "actions": {"backbone": "transformer", "transformer": TOKENS | {"tokens": "actions"}},
    "ssm": {"backbone": "ssm", "ssm": {"deter": 6, "state": 4, "layers": 2, "blocks": 2}},
    "lstm": {"backbone": "lstm", "lstm": LSTM},
    "mdn": {
        "backbone": "lstm",
        "lstm": LSTM,
        "prior": "mdn",
        "kl": {"rep": "unit"},
        "mdn": {"mixtures": 2},
    },
}


def shaken(module, seed, by=0.3):
    """``module`` with weights of which none is zero."""
    generator = torch.Generator().manual_seed(seed)
    initialize(module, generator)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return module


class Game:
    """A world model, a behaviour in it, and what it has seen."""

    def __init__(self, kind, action, world, behavior):
        settings = {
            "norm": "layer", "activation": "elu", "units": 8, "latent": "gaussian",
            "gaussian": {"size": 3}, "categorical": {"groups": 2, "classes": 3},
            "posterior": {"units": 6}, "net": {"units": 6},
            "heads": {"bins": 31, "reward": "normal"}, "fold_discount": False,
            "discount_horizon": 10.0, "encoder": {"vector_layers": 1},
        }  # fmt: skip
        world_config = WorldConfig(**settings | KINDS[kind] | world)
        given = {
            "gradient": "dynamics", "imag_horizon": 4,
            "advantage": "none", "entropy": {"scale": 0.0}, "actor": {"layers": 1},
            "critic": {
                "layers": 1, "kind": "normal", "target_network": "none", "replay_scale": 0.0,
            },
        }  # fmt: skip
        self.config = Config.model_construct(
            world=world_config, behavior=BehaviorConfig(**merged(given, behavior)), seed=0
        )
        spec = Spec(images={}, vectors={"v": VectorSpec(size=3)}, action=action)
        self.world = shaken(WorldModel(spec, world_config, generator=torch.Generator()), 1)
        made = ActorCritic(action, self.world, self.config.behavior, seed=0)
        self.behavior = shaken(made, 2)
        self.behavior.begin()
        generator = torch.Generator().manual_seed(3)
        none = torch.zeros(B, T, dtype=torch.bool)
        self.batch = Batch(
            obs={"v": torch.randn(B, T, 3, generator=generator)},
            prev_action=torch.rand(B, T, action.size, generator=generator) * 2 - 1,
            reward=torch.randn(B, T, generator=generator),
            is_first=none, is_last=none.clone(), is_terminal=none.clone(),
        )  # fmt: skip
        self.uniform = torch.rand(
            B, T, *self.world.dynamics.latent_dist.shape, generator=generator
        )

    def posterior(self):
        """(B, T) with gradients into the world."""
        return self.world.observe(self.batch, self.world.dynamics.initial(B), self.uniform)[0]

    def starts(self):
        """(B T,) every posterior."""
        with torch.no_grad():
            seen = self.posterior().detach()
            return self.world.dynamics.imagination_starts(seen, torch.arange(T))

    def made(self, seed=0):
        """Losses and metrics; without ``imag_starts`` all draws are those of the dream."""
        generator = torch.Generator().manual_seed(seed)
        return self.behavior.loss(self.world, self.batch, self.posterior(), generator)


@pytest.fixture
def play():
    """A function that makes a ``Game``."""

    def make(kind="gru", *, discrete=False, world=None, **behavior):
        action = CHOICES if discrete else CONTINUOUS
        return Game(kind, action, world or {}, behavior)

    return make
