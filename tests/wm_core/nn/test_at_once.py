"""A gradient that is taken at once is the gradient that the backward pass would take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_core.nn.at_once import sum_at_once


class CountingLayer(nn.Linear):
    """Notes how many rows it is given at a time."""

    seen: list[int]

    def forward(self, x):
        self.seen.append(len(x))
        return super().forward(x)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = CountingLayer(3, 2)
    layer.seen = []
    return layer


def gradients(layer, rows, *, autocast=False):
    """The sum of squares of 10 rows, and the gradients of input, weight and bias."""
    x = torch.linspace(-1, 1, 30).view(10, 3).requires_grad_()
    known = torch.arange(10.0)
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = sum_at_once(
            lambda x, known: known * layer(x).float().square().sum(1),
            (x, known), layer.parameters(), rows,
        )  # fmt: skip
    (0.3 * total).backward()
    return total.detach(), x.grad, layer.weight.grad, layer.bias.grad, known.grad


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 10, 99])
def test_sum_and_gradients_are_those_of_the_backward_pass(layer, rows, autocast):
    plain, at_once = (gradients(layer, r, autocast=autocast) for r in (None, rows))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if autocast else {}
    for expected, got in zip(plain[:4], at_once[:4], strict=True):
        torch.testing.assert_close(got, expected, **tolerance)
    assert at_once[4] is None


def test_no_more_rows_than_asked_for_are_computed_together(layer):
    gradients(layer, 4)
    assert layer.seen == [4, 4, 2]


def test_frozen_weights_and_inputs_need_no_gradient(layer):
    layer.requires_grad_(False)
    x = torch.ones(4, 3, requires_grad=True)
    sum_at_once(lambda x: layer(x).sum(1), (x,), layer.parameters(), 2).backward()
    assert torch.equal(x.grad, layer.weight.sum(0).expand(4, 3))
    total = sum_at_once(lambda x: layer(x).sum(1), (x.detach(),), layer.parameters(), 2)
    assert not total.requires_grad


def test_weights_that_a_function_does_not_use_get_zeros(layer):
    other, x = nn.Parameter(torch.ones(2)), torch.ones(4, 3)
    sum_at_once(lambda x: layer(x).sum(1), (x,), [*layer.parameters(), other], 3).backward()
    assert torch.equal(other.grad, torch.zeros(2))


def test_the_gradient_is_scaled_by_what_follows(layer):
    weight = torch.tensor(0.0, requires_grad=True)
    total = sum_at_once(lambda x: layer(x).sum(1), (torch.ones(4, 3),), layer.parameters(), 2)
    (weight.exp() * total).backward()
    torch.testing.assert_close(weight.grad, total.detach())
    torch.testing.assert_close(layer.bias.grad, torch.full((2,), 4.0))


def test_no_rows_sum_to_nothing(layer):
    x = torch.ones(0, 3, requires_grad=True)
    sum_at_once(lambda x: layer(x).sum(1), (x,), layer.parameters(), 2).backward()
    assert torch.equal(layer.bias.grad, torch.zeros(2))
