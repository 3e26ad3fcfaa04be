"""Scan against recurrence, discretisation against complex numbers, resets by gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wm_core.nn.blocks import initialize
from wm_core.nn.ssm import (
    STEP_MAX,
    STEP_MIN,
    Diagonal,
    StateSpace,
    hippo_frequencies,
    recurrence_parameters,
    scan,
)

WIDTH, STATE, LAYERS = 6, 8, 3


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def net():
    net = StateSpace(width=WIDTH, state=STATE, layers=LAYERS, blocks=2)
    initialize(net, torch.Generator().manual_seed(1))
    return net


def inputs(generator, batch, length, resets=()):
    x = torch.randn(batch, length, WIDTH, generator=generator)
    is_first = torch.zeros(batch, length, dtype=torch.bool)
    for b, t in resets:
        is_first[b, t] = True
    return x, is_first


def test_frequencies_are_the_eigenvalues_of_the_normal_part_of_hippo():
    n = np.arange(6)
    legs = -np.where(n[:, None] > n, np.sqrt((2 * n[:, None] + 1) * (2 * n + 1)), np.diag(n + 1.0))
    root = np.sqrt(n + 0.5)
    values = np.linalg.eigvals(legs + np.outer(root, root))
    np.testing.assert_allclose(values.real, -0.5, atol=1e-9)
    want = np.sort(values.imag[values.imag > 0])
    np.testing.assert_allclose(hippo_frequencies(6).numpy(), want, rtol=1e-5)


def test_the_initial_eigenvalues_are_hippo_s_in_each_block_and_decay():
    layer = Diagonal(WIDTH, STATE, 2)
    initialize(layer, torch.Generator().manual_seed(1))
    once = hippo_frequencies(STATE)
    torch.testing.assert_close(layer.frequency.detach(), torch.cat([once, once]))
    assert torch.exp(layer.log_decay).tolist() == pytest.approx([0.5] * STATE)
    steps = torch.exp(layer.log_step.weight)
    assert steps.min() >= STEP_MIN * 0.999
    assert steps.max() <= STEP_MAX * 1.001
    re, im = layer.discretize(torch.zeros(STATE))[0]
    assert (re.square() + im.square()).max() < 1.0


def test_discretisation_is_the_bilinear_rule_in_complex_numbers(generator):
    layer = Diagonal(WIDTH, STATE, 2)
    initialize(layer, generator)
    with torch.no_grad():
        a, gain = layer.discretize(torch.zeros(STATE))
        value = torch.complex(-torch.exp(layer.log_decay), layer.frequency)
        dt = torch.exp(layer.log_step.weight)
        torch.testing.assert_close(torch.complex(*a), (1 + dt / 2 * value) / (1 - dt / 2 * value))
        torch.testing.assert_close(torch.complex(*gain), dt / (1 - dt / 2 * value))


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_the_scan_and_its_gradient_are_those_of_a_loop(length, generator):
    angle = torch.linspace(0.1, 2.0, STATE, dtype=torch.float64)
    a = ((0.95 * angle.cos()).requires_grad_(), (0.95 * angle.sin()).requires_grad_())
    like = {"generator": generator, "dtype": torch.float64}
    drive = torch.randn(2, length, 2, STATE, **like, requires_grad=True)
    start = torch.randn(2, 2, STATE, **like, requires_grad=True)
    keep = (torch.rand(2, length, **like) > 0.2).double()
    state, states = torch.complex(start[:, 0], start[:, 1]), []
    for t in range(length):
        drives = torch.complex(drive[:, t, 0], drive[:, t, 1])
        state = torch.complex(*a) * state * keep[:, t, None] + drives
        states.append(torch.stack([state.real, state.imag], 1))
    want = torch.stack(states, 1)
    got = scan(a, drive, keep, start)
    torch.testing.assert_close(got, want)
    slope = torch.randn(want.shape, **like)
    leaves = (*a, drive, start)
    expected = torch.autograd.grad((want * slope).sum(), leaves)
    for x, y in zip(torch.autograd.grad((got * slope).sum(), leaves), expected, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_the_sequence_equals_its_steps_with_resets(order, generator):
    net = StateSpace(width=WIDTH, state=STATE, layers=LAYERS, blocks=2, order=order)
    initialize(net, generator)
    x, is_first = inputs(generator, 3, 100, resets=[(0, 0), (1, 40), (2, 70), (2, 71)])
    carry = torch.randn(3, LAYERS, 2, STATE, generator=generator)
    with torch.no_grad():
        deter, states = net(x, is_first, carry)
        for t in range(x.shape[1]):
            out, carry = net.step(x[:, t], is_first[:, t], carry)
            torch.testing.assert_close(out, deter[:, t], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(carry, states[:, t], rtol=1e-4, atol=1e-5)


def test_any_observed_state_can_be_continued(net, generator):
    x, is_first = inputs(generator, 2, 12)
    with torch.no_grad():
        whole, states = net(x, is_first)
        rest, _ = net(x[:, 5:], is_first[:, 5:], states[:, 4])
    torch.testing.assert_close(rest, whole[:, 5:])


def test_gradients_come_only_from_the_episode_s_past(net, generator):
    x, is_first = inputs(generator, 1, 12, resets=[(0, 5)])
    x.requires_grad_()
    carry = net.initial(1).requires_grad_()
    deter, _ = net(x, is_first, carry)
    for t, begin in [(4, 0), (5, 5), (11, 5)]:
        slopes = torch.autograd.grad(deter[0, t, 0], (x, carry), retain_graph=True)
        reached = slopes[0][0].abs().sum(-1) > 0
        assert reached.nonzero().flatten().tolist() == list(range(begin, t + 1))
        assert (slopes[1].abs().sum() > 0) == (begin == 0)


def test_gradients_reach_every_parameter(net, generator):
    deter, _ = net(*inputs(generator, 2, 6))
    deter.square().mul(torch.arange(WIDTH)).sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_state_is_forgotten_at_the_rate_of_its_eigenvalue():
    a = torch.tensor([0.0]), torch.tensor([0.5])  # a quarter turn and a half each step
    start = torch.tensor([[[1.0], [0.0]]])
    states = scan(a, torch.zeros(1, 3, 2, 1), torch.ones(1, 3), start)
    assert states[0, :, :, 0].tolist() == [[0.0, 0.5], [-0.25, 0.0], [0.0, -0.125]]


def test_the_parameters_of_the_recurrence_are_found(net):
    own = {id(p) for p in recurrence_parameters(net)}
    names = {n.split(".", 3)[3] for n, p in net.named_parameters() if id(p) in own}
    assert names == {"log_step.weight", "log_decay", "frequency", "drive.weight"}
    assert len(own) == 4 * LAYERS


def test_equal_generators_give_equal_weights():
    nets = [StateSpace(width=WIDTH, state=STATE, layers=1, blocks=2) for _ in range(2)]
    for net in nets:
        initialize(net, torch.Generator().manual_seed(3))
    pairs = zip(nets[0].parameters(), nets[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_initial_layer_keeps_the_scale_of_its_input(generator):
    net = StateSpace(width=64, state=64, layers=4)
    initialize(net, generator)
    x = torch.randn(2, 64, 64, generator=generator)
    with torch.no_grad():
        deter, states = net(x, torch.zeros(2, 64, dtype=torch.bool))
    assert 0.5 < deter.std().item() < 2.0
    assert 0.01 < states.std().item() < math.sqrt(2.0)
