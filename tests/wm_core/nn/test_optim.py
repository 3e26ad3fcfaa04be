"""LaProp, adaptive clipping and the return range against numbers worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from wm_core.nn.normalize import PercentileRange
from wm_core.nn.optim import LaProp, clip_adaptively


def test_clipping_scales_a_gradient_to_its_share_of_the_parameter():
    parameters = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0]), torch.tensor([10.0])]
    gradients = [torch.tensor([0.0, 15.0]), torch.tensor([3e-3, 4e-3]), torch.tensor([1.0])]
    norm = clip_adaptively(gradients, parameters, ratio=0.3, floor=1e-3)
    # |p| = 5 allows 1.5; |p| = 0 counts as 0.001 and allows 0.0003; 1 is within 3.
    torch.testing.assert_close(gradients[0], torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(gradients[1], torch.tensor([1.8e-4, 2.4e-4]))
    torch.testing.assert_close(gradients[2], torch.tensor([1.0]))
    assert norm.item() == pytest.approx(math.sqrt(226 + 25e-6))


def by_hand(gradients: list[float], *, lr: float, warmup: int) -> float:
    """Where LaProp has moved a parameter that started at 100, in plain arithmetic."""
    value, square, momentum = 100.0, 0.0, 0.0
    for n, gradient in enumerate(gradients, start=1):
        square = 0.999 * square + 0.001 * gradient**2
        unit = gradient / (math.sqrt(square / (1 - 0.999**n)) + 1e-20)
        momentum = 0.9 * momentum + 0.1 * unit
        value -= lr * min(1.0, n / warmup) * momentum / (1 - 0.9**n)
    return value


def test_laprop_follows_its_definition():
    gradients = [2.0, -1.0, 0.5, 4.0, 0.0]
    parameter = nn.Parameter(torch.tensor([100.0], dtype=torch.float64))
    optimizer = LaProp([parameter], lr=0.1, warmup=3)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(by_hand(gradients, lr=0.1, warmup=3), rel=1e-9)


def test_first_step_has_the_length_of_the_learning_rate():
    parameter = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = LaProp([parameter], lr=0.01, warmup=0)
    parameter.grad = torch.tensor([1e-6, -1e-3])
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.tensor([0.99, -0.99]))


def test_parameters_without_a_gradient_stay():
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LaProp([moved, still], lr=0.1)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(still.data, torch.ones(2))
    assert not torch.equal(moved.data, torch.ones(2))


def test_laprop_resumes_bit_for_bit():
    def train(optimizer, parameter, steps):
        for n in steps:
            parameter.grad = torch.tensor([1.0 + n, -0.5 * n])
            optimizer.step()

    straight = nn.Parameter(torch.tensor([1.0, 2.0]))
    first = LaProp([straight], lr=0.1, warmup=4)
    train(first, straight, range(3))
    resumed = nn.Parameter(straight.detach().clone())
    second = LaProp([resumed], lr=0.1, warmup=4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(first, straight, range(3, 6))
    train(second, resumed, range(3, 6))
    assert torch.equal(straight, resumed)


def test_return_range_moves_by_its_rate_from_zero():
    scale = PercentileRange(rate=0.01, low=0.05, high=0.95, limit=1.0)
    values = torch.linspace(0, 1000, 1001)
    assert scale.update(values).item() == pytest.approx(9.0)  # 1 % of 950 - 50
    assert scale.update(values).item() == pytest.approx(17.91)  # 1.99 %


def test_small_ranges_are_never_scaled_up():
    scale = PercentileRange(rate=1.0, low=0.05, high=0.95, limit=1.0)
    assert scale.update(torch.linspace(0, 0.1, 11)).item() == 1.0
