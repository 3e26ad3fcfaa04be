"""A world model small enough to look inside, and experience for it."""

from __future__ import annotations

import pytest
import torch

from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.presets.micro import merged
from wm_core.world.latent import Latent
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import WorldModel

B, T, A = 3, 7, 2

SMALL = {"width": 12, "layers": 2, "heads": 2, "head": 4, "hidden": 16, "window": 8}
BACKBONES = {
    "gru": {},
    "gaussian gru": {"latent": "gaussian", "gaussian": {"size": 6}, "gru": {"cell": "plain"}},
    "joint": {"backbone": "transformer", "transformer": SMALL},
    "split": {
        "backbone": "transformer",
        "transformer": SMALL | {"tokens": "split", "positions": "xl"},
    },
    "actions": {
        "backbone": "transformer",
        "transformer": SMALL | {"tokens": "actions", "positions": "sinusoid"},
    },
    "ssm": {"backbone": "ssm", "ssm": {"state": 8, "layers": 2, "blocks": 2}},
    "lstm": {"backbone": "lstm"},
    "token_gru": {"backbone": "token_gru"},
    "mdn": {
        "backbone": "lstm",
        "latent": "gaussian",
        "gaussian": {"size": 6},
        "prior": "mdn",
        "kl": {"rep": "unit"},
    },
}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def start(generator):
    """(3,) latents that are not zero."""
    stoch = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [3, 2, 1], [1, 1, 0]]), 4)
    return Latent(torch.randn(B, 16, generator=generator), stoch.float())


@pytest.fixture
def config():
    return WorldConfig(
        encoder={"kind": "k4s2", "depth": 2},
        gru={"deter": 16, "hidden": 8, "blocks": 4},
        lstm={"deter": 16, "hidden": 8},
        token_gru={"deter": 16, "hidden": 8},
        ssm={"deter": 16},
        posterior={"units": 8},
        net={"units": 8},
        categorical={"groups": 3, "classes": 4},
        units=8,
        heads={"bins": 31},
    )


@pytest.fixture
def build(config):
    """A function that makes a world model that sees 16x16 pixels and three joints."""
    spec = Spec(
        images={"image": ImageSpec(height=16, width=16)},
        vectors={"joints": VectorSpec(size=3)},
        action=ActionSpec(low=(-1.0,) * A, high=(1.0,) * A),
    )

    def make(**changes):
        settings = WorldConfig(**merged(config.model_dump(), changes))
        return WorldModel(spec, settings, generator=torch.Generator().manual_seed(0))

    return make


@pytest.fixture
def world(build):
    return build()


@pytest.fixture(params=list(BACKBONES))
def any_world(request, build):
    """A world model of each backbone, and of each kind of tokens.

    It has no free nats: below them a loss would have no gradient, whatever was wrong with it.
    """
    return build(**merged(BACKBONES[request.param], {"kl": {"free_nats": 0.0}}))


@pytest.fixture
def batch(generator):
    """(3, 7) random steps; the second window starts anew at step 4."""
    image = torch.randint(0, 256, (B, T, 16, 16, 3), generator=generator, dtype=torch.uint8)
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[1, 4] = True
    return Batch(
        obs={"image": image, "joints": torch.randn(B, T, 3, generator=generator)},
        prev_action=torch.rand(B, T, A, generator=generator) * 2 - 1,
        reward=torch.randn(B, T, generator=generator),
        is_first=is_first,
        is_last=is_first.roll(-1, 1),
        is_terminal=torch.zeros(B, T, dtype=torch.bool),
    )


@pytest.fixture
def uniform(generator):
    """(B, T, S, K) noise of the latents."""
    return torch.rand(B, T, 3, 4, generator=generator)
