"""Losses whose gradients are taken some rows at a time make the same update."""

from __future__ import annotations

import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.contract.errors import SettingsError
from wm_core.presets.micro import changed

#: each has other inputs, outputs or weights of its losses
CASES = {
    "plain": ("dreamer_v3", {}),
    "share": ("dreamer_v3", {"world": {"recon": {"share": 0.4}}}),
    "sigmoid": ("daydreamer", {}),
    "detached": ("r2dreamer", {"world": {"decoder": {"kind": "detached"}}}),
    "harmony": ("dreamer_v3", {"world": {"balance": {"kind": "harmony"}}}),
    "gaussian": ("dreamer_v1", {}),
    "transformer": ("twm", {}),
}
AT_ONCE = {
    "world": {"recon": {"rows_at_once": 3}},
    "behavior": {"critic": {"rows_at_once": 5}},
}


def one_step(spec, config, batch):
    """Losses, and gradients by the names of the weights, of one batch."""
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    losses, _, _ = agent.losses(batch, None, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {k: p.grad for k, p in agent.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_same(small, case):
    preset, changes = CASES[case]
    parts = small(preset, vectors=True, **changes)
    plain = one_step(parts.spec, parts.config, parts.batch())
    at_once = one_step(parts.spec, changed(parts.config, **AT_ONCE), parts.batch())
    for expected, got in zip(plain, at_once, strict=True):
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_actors_loss_is_the_same_in_parts(small, discrete):
    parts = small("dreamer_v3", discrete=discrete)
    in_parts = changed(parts.config, behavior={"actor": {"rows_at_once": 5}})
    plain, at_once = (
        one_step(parts.spec, config, parts.batch()) for config in (parts.config, in_parts)
    )
    assert any(k.startswith("behavior.actor") and g.any() for k, g in plain[1].items())
    for expected, got in zip(plain, at_once, strict=True):
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "behavior",
    [{"gradient": "dynamics"}, {"gradient": "mix"}, {"entropy": {"rule": "hinge"}}],
)
def test_an_actors_loss_that_is_no_sum_over_rollouts_is_refused_in_parts(small, behavior):
    parts = small("dreamer_v3", behavior={"actor": {"rows_at_once": 5}} | behavior)
    with pytest.raises(SettingsError, match="leave rows_at_once out"):
        AgentCore(parts.spec, parts.config, generator=torch.Generator())
