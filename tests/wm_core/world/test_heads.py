"""Heads for real numbers: what they mean and what they pay."""

from __future__ import annotations

import math

import pytest
import torch

from wm_core.nn.blocks import Style, initialize
from wm_core.world.heads import number_head

KINDS = ["twohot", "normal", "symlog"]


def head_of(kind, layers=1):
    head = number_head(kind, 5, 8, layers, 255, Style())
    initialize(head, torch.Generator().manual_seed(0))
    return head


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_head_says_exactly_nothing(kind):
    head = head_of(kind)
    value = head.value(head(torch.randn(4, 3, 5)))
    assert value.shape == (4, 3)
    assert not value.any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_pays_least_means_the_target(kind):
    """Descending on the head's own raw numbers leads to raw numbers that mean the target."""
    head, target = head_of(kind), torch.tensor([-50.0, 0.0, 0.7, 20.0])
    raw = head(torch.zeros(4, 5)).detach().requires_grad_()
    optimizer = torch.optim.LBFGS([raw], lr=1.0, max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = head.error(raw, target).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(head.value(raw.detach()), target, rtol=0.02, atol=0.02)


def test_a_normal_head_pays_half_the_squared_error_and_a_symlog_head_that_of_logarithms():
    raw, target = torch.tensor([1.0, -2.0]), torch.tensor([3.0, math.e - 1])
    assert head_of("normal").error(raw, target).tolist() == pytest.approx(
        [2.0, 0.5 * (math.e + 1) ** 2]
    )
    by_log = head_of("symlog")
    assert by_log.error(raw, target).tolist() == pytest.approx(
        [0.5 * (1 - math.log(4)) ** 2, 0.5 * 9.0]
    )
    assert by_log.value(raw).tolist() == pytest.approx([math.e - 1, 1 - math.e**2])


@pytest.mark.parametrize("kind", KINDS)
def test_targets_have_no_gradient(kind):
    head, target = head_of(kind), torch.tensor([0.3]).requires_grad_()
    assert not head.error(head(torch.zeros(1, 5)).detach(), target).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_never_larger_than_the_terms_that_it_sums(kind):
    head = head_of(kind)
    raw = 3.0 * torch.randn(6, 255) if kind == "twohot" else torch.randn(6)
    assert (head.size_of(raw) >= head.value(raw).abs() * (1 - 1e-5)).all()
