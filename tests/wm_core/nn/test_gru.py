"""Recurrent cells: torch's LSTM, the dense GRU's formula, sequences, resets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wm_core.nn.blocks import initialize
from wm_core.nn.gru import GRU, LSTM

I, D = 3, 5


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def shaken(module, generator):
    initialize(module, generator)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return module


@pytest.mark.parametrize("norm", [False, True])
def test_the_dense_gru_follows_its_formula(norm, generator):
    gru = shaken(GRU(I, D, norm=norm), generator)
    deter, x = torch.randn(4, D, generator=generator), torch.randn(4, I, generator=generator)
    gates = torch.cat([x, deter], -1) @ gru.gates.weight.T
    if norm:
        gates = F.layer_norm(gates, (3 * D,), gru.norm.weight, gru.norm.bias, eps=1e-3)
    else:
        gates = gates + gru.gates.bias
    reset, candidate, update = gates[:, :D], gates[:, D : 2 * D], gates[:, 2 * D :]
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * deter
    torch.testing.assert_close(gru(deter, x), expected)


def test_a_dense_gru_whose_update_gate_is_closed_remembers(generator):
    gru = shaken(GRU(I, D, norm=False), generator)
    gru.gates.bias.data[2 * D :] = -1e3
    deter = torch.randn(4, D, generator=generator)
    assert torch.equal(gru(deter, torch.randn(4, I, generator=generator)), deter)


def torchs(lstm):
    """torch's LSTM with the weights of ours: gates in another order, the forget bias within."""
    net = torch.nn.LSTM(I, D, batch_first=True)
    enter, forget, leave, new = range(0, 4 * D, D)
    rows = torch.cat([torch.arange(at, at + D) for at in (enter, forget, new, leave)])
    with torch.no_grad():
        net.weight_ih_l0.copy_(lstm.inner.weight[rows])
        net.weight_hh_l0.copy_(lstm.recur.weight[rows])
        net.bias_ih_l0.copy_(lstm.inner.bias[rows])
        net.bias_hh_l0.zero_()
        net.bias_hh_l0[D : 2 * D] = 1.0  # our forget gate begins open
    return net


def test_the_lstm_is_torchs_with_a_forget_gate_that_begins_open(generator):
    lstm = shaken(LSTM(I, D), generator)
    x = torch.randn(2, 9, I, generator=generator)
    out, cell = torch.randn(2, 2, D, generator=generator)
    never = torch.zeros(2, 9, dtype=torch.bool)
    outs, cells = lstm(x, never, (out, cell))
    want, (last, last_cell) = torchs(lstm)(x, (out[None], cell[None]))
    torch.testing.assert_close(outs, want)
    torch.testing.assert_close(outs[:, -1], last[0])
    torch.testing.assert_close(cells[:, -1], last_cell[0])


def test_an_lstm_over_a_sequence_is_its_steps_with_resets(generator):
    lstm = shaken(LSTM(I, D), generator)
    x = torch.randn(3, 8, I, generator=generator)
    is_first = torch.zeros(3, 8, dtype=torch.bool)
    is_first[0, 0] = is_first[1, 4] = is_first[1, 5] = True
    memory = tuple(torch.randn(2, 3, D, generator=generator))
    with torch.no_grad():
        outs, cells = lstm(x, is_first, memory)
        for t in range(8):
            memory = lstm.step(x[:, t], is_first[:, t], memory)
            torch.testing.assert_close(memory[0], outs[:, t])
            torch.testing.assert_close(memory[1], cells[:, t])


def test_an_lstm_s_gradients_come_only_from_the_episode_s_past(generator):
    lstm = shaken(LSTM(I, D), generator)
    x = torch.randn(1, 8, I, generator=generator).requires_grad_()
    memory = tuple(m.requires_grad_() for m in torch.randn(2, 1, D, generator=generator))
    is_first = torch.zeros(1, 8, dtype=torch.bool)
    is_first[0, 4] = True
    outs, _ = lstm(x, is_first, memory)
    for t, begin in ((3, 0), (4, 4), (7, 4)):
        slopes = torch.autograd.grad(outs[0, t].sum(), (x, *memory), retain_graph=True)
        reached = slopes[0][0].abs().sum(-1) > 0
        assert reached.nonzero().flatten().tolist() == list(range(begin, t + 1))
        assert all((slope.abs().sum() > 0) == (begin == 0) for slope in slopes[1:])


@pytest.mark.parametrize("kind", ["layer_norm", "plain", "lstm"])
def test_gradients_reach_every_parameter(kind, generator):
    x = torch.randn(4, I, generator=generator)
    memory = torch.randn(2, 4, D, generator=generator)
    if kind == "lstm":
        net = shaken(LSTM(I, D), generator)
        out = net.step(x, torch.zeros(4, dtype=torch.bool), tuple(memory))[0]
    else:
        net = shaken(GRU(I, D, norm=kind == "layer_norm"), generator)
        out = net(memory[0], x)
    out.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
