"""What the backbone reads of a step, and that settings reach it."""

from __future__ import annotations

import torch

from wm_core.nn.blocks import Style, initialize
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import make_dynamics

SPLIT = {"width": 12, "layers": 1, "heads": 1, "head": 4, "hidden": 8, "tokens": "split"}


def test_active_tokens_pass_an_activation_but_the_action_s():
    """As in TWM's code, whose action is a row of a table."""

    def reader(*, active):
        settings = SPLIT | {"token_activation": active}
        config = WorldConfig(
            backbone="transformer", transformer=settings, latent="gaussian", gaussian={"size": 4}
        )
        model = make_dynamics(config, 6, 2, Style())
        initialize(model, torch.Generator().manual_seed(1))
        return model.reader

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, *shape, generator=generator) for shape in ((4,), (2,), ())]
    expected, got = reader(active=False)(*inputs), reader(active=True)(*inputs)
    torch.testing.assert_close(got[:, :2], torch.nn.functional.silu(expected[:, :2]))
    assert torch.equal(got[:, 2], expected[:, 2])
    assert not torch.equal(got[:, :2], expected[:, :2])
