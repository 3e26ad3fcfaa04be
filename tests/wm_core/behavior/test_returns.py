"""λ-returns against the sums that define them."""

from __future__ import annotations

import pytest
import torch

from wm_core.behavior.returns import lambda_return, survival


def by_definition(reward, cont, value, discount: float, lam: float, t: int) -> float:
    """Target of state ``t``: (1 - λ) Σ λ^(n-1) G^(n), the longest return taking the rest."""
    horizon = len(reward) - 1 - t
    total, weight = 0.0, 1.0
    for n in range(1, horizon + 1):
        gain, alive = 0.0, 1.0
        for k in range(1, n + 1):
            gain += alive * float(reward[t + k])
            alive *= discount * float(cont[t + k])
        gain += alive * float(value[t + n])
        share = weight if n == horizon else weight * (1 - lam)
        total += share * gain
        weight *= lam
    return total


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_lambda_return_is_the_mixture_of_n_step_returns(lam):
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 1, 7, generator=generator)
    cont = torch.rand(1, 7, generator=generator)
    got = lambda_return(reward, cont, value, discount=0.9, lam=lam)[0]
    expected = [by_definition(reward[0], cont[0], value[0], 0.9, lam, t) for t in range(6)]
    torch.testing.assert_close(got, torch.tensor(expected))


def test_terminal_state_hides_everything_behind_it():
    reward = torch.tensor([[9.0, 1.0, 5.0, 5.0]])
    cont = torch.tensor([[1.0, 0.0, 1.0, 1.0]])  # the episode ends on arriving in state 1
    got = lambda_return(reward, cont, torch.full((1, 4), 7.0), discount=0.9, lam=0.95)
    assert got[0, 0] == 1.0


def test_a_return_bootstraps_where_the_record_breaks_off():
    reward = torch.tensor([[0.0, 1.0, 100.0, 100.0]])
    value = torch.tensor([[0.0, 7.0, 100.0, 100.0]])
    is_last = torch.tensor([[False, True, False, False]])  # state 1 was truncated, not terminal
    got = lambda_return(reward, torch.ones(1, 4), value, discount=0.5, lam=0.95, is_last=is_last)
    assert got[0, 0] == 1.0 + 0.5 * 7.0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        lambda_return(
            torch.zeros(1, 4), torch.zeros(1, 3), torch.zeros(1, 4), discount=1.0, lam=0.5
        )


def test_survival_is_the_running_product():
    got = survival(torch.tensor([[0.5, 1.0, 0.0, 1.0]]))
    assert got.tolist() == [[0.5, 0.5, 0.0, 0.0]]
