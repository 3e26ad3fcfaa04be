"""Losses that are weighed by scales which are learnt with them."""

import math

import pytest
import torch

from wm_core.config import Config
from wm_core.world.balance import PARTS, LossBalance
from wm_core.world.settings import BalanceConfig

LOSSES = (
    {"rep_loss": 0.1, "recon_loss/image": 40.0, "recon_loss/joints": 10.0, "entropy_loss": 2.0},
    {"dyn_loss": 0.4, "reward_loss": 0.02, "cont_loss": 3.0},
)
TOTALS = {"observation": 50.0, "reward": 0.02, "dynamics": 0.5}


def losses():
    return [{name: torch.tensor(value) for name, value in group.items()} for group in LOSSES]


def test_the_weights_begin_at_one_so_that_nothing_changes_at_first():
    groups, cost, weights = LossBalance(BalanceConfig())(*losses())
    assert groups == losses()
    assert cost.item() == pytest.approx(3 * math.log(2))
    assert {k: v.item() for k, v in weights.items()} == {f"weight/{p}": 1.0 for p in PARTS}


def test_at_rest_the_scales_are_where_the_papers_loss_has_its_minimum():
    """d/ds (L / s + log(1 + s)) = 0 gives s = (L + sqrt(L^2 + 4 L)) / 2."""
    balance = LossBalance(BalanceConfig())
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.1)
    for _ in range(800):
        groups, cost, _ = balance(*losses())
        optimizer.zero_grad()
        (sum(sum(group.values()) for group in groups) + cost).backward()
        optimizer.step()
    expected = [(x + math.sqrt(x * x + 4 * x)) / 2 for x in TOTALS.values()]
    assert balance.log_scale.exp().tolist() == pytest.approx(expected, rel=0.01)
    weighted = groups[0] | groups[1]
    assert weighted["cont_loss"] == 3.0  # neither this
    assert weighted["entropy_loss"] == 2.0  # nor this is weighed
    assert weighted["recon_loss/image"].item() == pytest.approx(40 / expected[0], rel=0.01)


def test_a_reconstruction_that_only_shows_latents_has_no_weight():
    balance = LossBalance(BalanceConfig(), shown=True)
    torch.nn.init.constant_(balance.log_scale, 1.0)
    shown = {"recon_loss/image": torch.tensor(2.0), "barlow_loss": torch.tensor(2.0)}
    ((weighted,), _, _) = balance(shown)
    assert weighted["recon_loss/image"] == 2.0
    assert weighted["barlow_loss"].item() == pytest.approx(2 / math.e)


def test_the_scales_learn_at_a_rate_of_their_own_with_the_world_model(build, batch, generator):
    world = build(balance={"kind": "harmony", "lr": 0.5})
    groups = world.parameter_groups()
    assert groups["balance"].lr == 0.5
    assert groups["balance"].parameters == [world.balance.log_scale]
    total = sum(len(group.parameters) for group in groups.values())
    assert total == len(list(world.parameters()))
    start = world.dynamics.initial(len(batch.reward), torch.device("cpu"))
    found = world.loss(batch, start, generator)
    sum((found.representation | found.dynamics).values()).backward()
    raw = {"observation": 0.0, "reward": 0.0, "dynamics": 0.0}
    for name, loss in (found.representation | found.dynamics).items():
        part = {"reward_loss": "reward", "dyn_loss": "dynamics", "rep_loss": "dynamics"}.get(name)
        part = part or ("observation" if name.startswith("recon") else None)
        if part:
            raw[part] += loss.item()
    assert world.balance.log_scale.grad.tolist() == pytest.approx([0.5 - raw[p] for p in PARTS])


def test_fixed_weights_leave_the_losses_as_they_were(build, batch):
    start = build().dynamics.initial(len(batch.reward), torch.device("cpu"))
    fixed, learnt = (
        build(balance={"kind": kind}).loss(batch, start, torch.Generator().manual_seed(3))
        for kind in ("fixed", "harmony")
    )
    before = fixed.representation | fixed.dynamics
    after = learnt.representation | learnt.dynamics
    cost = after.pop("balance_loss")
    assert cost > 0
    assert {k: v.item() for k, v in before.items()} == {k: v.item() for k, v in after.items()}


def test_stages_and_learnt_weights_are_refused_together():
    with pytest.raises(ValueError, match=r"harmony needs all losses .* leave optim.stages out"):
        Config(world={"balance": {"kind": "harmony"}}, optim={"stages": (4, 4)})
