"""Attention against its formula, steps against sequences, and what nothing may see."""

from __future__ import annotations

import math

import pytest
import torch

from wm_core.nn.attention import drop, rates, sinusoids
from wm_core.nn.blocks import initialize
from wm_core.nn.transformer import Cache, Transformer

POSITIONS = ["none", "sinusoid", "age", "shaw", "xl"]
WIDTH, HEADS, HEAD, WINDOW = 12, 2, 4, 5


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def make(positions, *, layers=2, **options):
    net = Transformer(
        width=WIDTH, layers=layers, heads=HEADS, head=HEAD, hidden=16, window=WINDOW,
        positions=positions, **options,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    initialize(net, generator)
    with torch.no_grad():  # nothing stays at its initial zero or one
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def tokens(generator, batch, length, resets=()):
    x = torch.randn(batch, length, WIDTH, generator=generator)
    is_first = torch.zeros(batch, length, dtype=torch.bool)
    for b, t in resets:
        is_first[b, t] = True
    return x, is_first


def detached(cache):
    return Cache(*(part.detach() for part in cache))


def naive_attention(attention, x, is_first, positions, divisor=HEAD):
    """One query, one head and one key at a time, from the papers' formulas; x is (T, width)."""
    weight = attention.inner.weight.reshape(3, HEADS, HEAD, WIDTH)
    reads = []
    for t in range(len(x)):
        begin = max([0, t - WINDOW + 1, *(s for s in range(t + 1) if is_first[s])])
        for h in range(HEADS):
            query, keys, values = weight[0, h] @ x[t], weight[1, h], weight[2, h]
            logits, reading = [], []
            for s in range(begin, t + 1):
                age, slot = t - s, WINDOW - 1 - (t - s)
                key, value, scores = keys @ x[s], values @ x[s], attention.scores
                logit = query @ key / math.sqrt(divisor)
                if positions == "age":
                    logit = logit + scores.bias[h, 0, slot]
                if positions == "shaw":
                    logit = query @ (key + scores.key.weight[:, slot]) / math.sqrt(divisor)
                    value = value + scores.value.weight[slot]
                if positions == "xl":
                    where = scores.place.weight[h] @ sinusoids(torch.tensor(age), rates(WIDTH))
                    u, v = scores.u[h, 0], scores.v[h, 0]
                    logit = ((query + u) @ key + (query + v) @ where) / math.sqrt(divisor)
                logits.append(logit)
                reading.append(value)
            reads.append(torch.softmax(torch.stack(logits), 0) @ torch.stack(reading))
    flat = torch.stack(reads).reshape(len(x), HEADS * HEAD)
    return flat @ attention.outer.weight.T + attention.outer.bias


@pytest.mark.parametrize(("scale", "divisor"), [("head", HEAD), ("width", WIDTH)])
@pytest.mark.parametrize("positions", POSITIONS)
def test_attention_is_the_naive_formula_over_window_and_episode(
    positions, scale, divisor, generator
):
    net = make(positions, layers=1, score_scale=scale)
    x, is_first = tokens(generator, 1, 14, resets=[(0, 9)])
    view, _ = net._view(is_first, None)
    attention = net.blocks[0].attention
    got, _ = attention(x[0], None, view, None)
    expected = naive_attention(attention, x[0], is_first[0], positions, divisor)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize(("order", "readout"), [("pre", "all"), ("post", "last")])
def test_cached_steps_equal_windowed_full_attention(positions, order, readout, generator):
    net = make(positions, layers=3, order=order, readout=readout)
    x, is_first = tokens(generator, 3, 8 * WINDOW, resets=[(1, 0), (1, 7), (2, 20), (2, 21)])
    with torch.no_grad():
        full, history = net(x, is_first)
        cache, outs = net.initial(3), []
        for t in range(x.shape[1]):
            out, cache = net.step(x[:, t], is_first[:, t], cache)
            outs.append(out)
    torch.testing.assert_close(torch.stack(outs, 1), full, rtol=1e-4, atol=5e-5)
    assert full.shape[-1] == net.outputs
    for kept, stepped in zip(history.last(), cache, strict=True):
        torch.testing.assert_close(kept, stepped)


@pytest.mark.parametrize("positions", POSITIONS)
def test_pieces_of_any_length_equal_the_whole(positions, generator):
    net = make(positions)
    x, is_first = tokens(generator, 2, 20, resets=[(0, 6), (1, 13)])
    with torch.no_grad():
        whole, _ = net(x, is_first)
        cache, outs = None, []
        for begin, end in [(0, 2), (2, 3), (3, 12), (12, 20)]:
            out, history = net(x[:, begin:end], is_first[:, begin:end], cache)
            cache = history.last()
            outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), whole)


@pytest.mark.parametrize("carried", [False, True])
def test_a_history_holds_the_cache_after_each_token(carried, generator):
    net = make("shaw")
    x, is_first = tokens(generator, 2, 13, resets=[(0, 4), (1, 11)])
    with torch.no_grad():
        cache = net(*tokens(generator, 2, 3))[1].last() if carried else net.initial(2)
        _, history = net(x, is_first, cache if carried else None)
        times = torch.tensor([0, 3, 5, 12])
        kept = history.at(times)
        after = []
        for t in range(x.shape[1]):
            _, cache = net.step(x[:, t], is_first[:, t], cache)
            after.append(cache)
        for m, t in enumerate(times.tolist()):
            for got, want in zip(kept, after[t], strict=True):
                torch.testing.assert_close(got.unflatten(0, (2, 4))[:, m], want)


def test_imagination_from_each_observed_token_goes_on_where_it_was(generator):
    net = make("age")
    x, is_first = tokens(generator, 2, 9)
    ahead = torch.randn(18, WIDTH, generator=generator)
    with torch.no_grad():
        _, history = net(x, is_first)
        cache = history.at(torch.arange(9))
        out, _ = net.step(ahead, torch.zeros(18, dtype=torch.bool), cache)
        longer = torch.cat([x[1, :6], ahead[9 + 5 : 9 + 6]]).unsqueeze(0)  # from row 1, token 5
        want, _ = net(longer, torch.zeros(1, 7, dtype=torch.bool))
    torch.testing.assert_close(out[14], want[0, -1])


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_come_only_from_the_window_and_the_episode(positions, generator):
    net = make(positions, layers=2)
    x, is_first = tokens(generator, 1, 16, resets=[(0, 3)])
    x.requires_grad_()
    out, _ = net(x, is_first)
    for t in (2, 5, 15):
        (slope,) = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)
        reached = slope[0].abs().sum(-1) > 0
        begin = max(3 if t >= 3 else 0, t - 2 * (WINDOW - 1))  # each layer reaches back a window
        assert reached.nonzero().flatten().tolist() == list(range(begin, t + 1))


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_first_step_of_an_episode_ignores_the_cache(positions, generator):
    net = make(positions)
    _, history = net(*tokens(generator, 2, 7))
    full = Cache(*(part.detach().requires_grad_() for part in history.last()))
    x, _ = tokens(generator, 2, 1)
    with torch.no_grad():
        fresh, _ = net.step(x[:, 0], torch.tensor([True, True]), net.initial(2))
    out, after = net.step(x[:, 0], torch.tensor([True, False]), full)
    torch.testing.assert_close(out[0], fresh[0])
    assert not torch.allclose(out[1], fresh[1])
    slope = torch.autograd.grad(out.sum(), full.keys, retain_graph=True)[0]
    assert slope[0].abs().sum() == 0
    assert slope[1].abs().sum() > 0
    assert after.valid.sum(1).tolist() == [1.0, WINDOW]
    assert after.tokens.tolist() == [1.0, 8.0]


def test_gradients_run_through_the_cache_of_imagined_steps(generator):
    net = make("age")
    x, is_first = tokens(generator, 1, 4)
    x.requires_grad_()
    cache = net.initial(1)
    for t in range(4):
        out, cache = net.step(x[:, t], is_first[:, t], cache)
    stepped = torch.autograd.grad(out.sum(), x)[0]
    full, _ = net(x, is_first)
    torch.testing.assert_close(stepped, torch.autograd.grad(full[:, -1].sum(), x)[0])


def test_the_biases_of_xl_begin_by_glorots_law(generator):
    net = Transformer(
        width=64, layers=2, heads=8, head=64, hidden=16, window=WINDOW, positions="xl"
    )
    before = torch.get_rng_state()
    initialize(net, generator)
    assert torch.equal(before, torch.get_rng_state())
    bound = math.sqrt(6 / (8 + 64))
    biases = [
        b for block in net.blocks for b in (block.attention.scores.u, block.attention.scores.v)
    ]
    for bias in biases:
        assert 0.95 * bound < bias.abs().max() <= bound
        assert bias.mean().abs() < 0.1 * bound
    assert not torch.equal(biases[0], biases[1])


def test_both_orders_of_the_xl_product_agree(generator):
    net = make("xl", layers=1)
    scores = net.blocks[0].attention.scores
    query, keys = (torch.randn(WINDOW, HEADS, 1, HEAD, generator=generator) for _ in range(2))
    keys = keys.expand(WINDOW, HEADS, WINDOW, HEAD)
    rows = [scores(query[i : i + 1], keys[i : i + 1], None) for i in range(WINDOW)]
    torch.testing.assert_close(scores(query, keys, None), torch.cat(rows))


def test_reading_out_all_layers_puts_the_last_one_last(generator):
    x, is_first = tokens(generator, 2, 6)
    every = make("age", order="post", readout="all")
    last = make("age", order="post", readout="last")
    torch.testing.assert_close(every(x, is_first)[0][..., -WIDTH:], last(x, is_first)[0])


def test_dropout_needs_a_generator_and_keeps_the_mean(generator):
    x = torch.ones(200, 200)
    assert drop(x, 0.4, None) is x
    dropped = drop(x, 0.4, generator)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    net = make("age", dropout=0.5)
    tokens_ = tokens(generator, 1, 4)
    plain, again = net(*tokens_)[0], net(*tokens_)[0]
    assert torch.equal(plain, again)
    assert not torch.allclose(net(*tokens_, generator=generator)[0], plain)


def test_absolute_positions_are_added_to_the_tokens_and_count_from_zero(generator):
    told, untold = make("sinusoid"), make("none")  # equal weights: positions add none
    x, is_first = tokens(generator, 1, 7)
    table = [
        [math.sin(t / 10000 ** (2 * i / WIDTH)) for i in range(WIDTH // 2)]
        + [math.cos(t / 10000 ** (2 * i / WIDTH)) for i in range(WIDTH // 2)]
        for t in range(7)
    ]
    want, _ = untold(x + torch.tensor(table), is_first)
    torch.testing.assert_close(told(x, is_first)[0], want)


def test_a_sequence_of_actions_alone_equals_single_steps(generator):
    """A start token and then actions: the prefix opens the episode, nothing is fed back."""
    net = make("shaw")
    start, actions = (torch.randn(3, n, WIDTH, generator=generator) for n in (1, 4))
    is_first = torch.tensor([[True, False, False, False, False]]).expand(3, 5)
    with torch.no_grad():
        at_once, _ = net(torch.cat([start, actions], 1), is_first)
        _, cache = net.step(start[:, 0], is_first[:, 0], net.initial(3))
        for t in range(4):
            out, cache = net.step(actions[:, t], is_first[:, t + 1], cache)
            torch.testing.assert_close(out, at_once[:, t + 1])


def test_positions_begin_anew_with_the_episode(generator):
    net = make("sinusoid")
    x, is_first = tokens(generator, 1, 9, resets=[(0, 4)])
    out, _ = net(x, is_first)
    alone, _ = net(x[:, 4:], is_first[:, 4:])
    torch.testing.assert_close(out[:, 4:], alone)


@pytest.mark.parametrize(
    ("option", "value"), [("window", 1), ("positions", "rotary")], ids=["window", "positions"]
)
def test_invalid_settings_are_refused_by_name(option, value):
    options = {"window": WINDOW, "positions": "age", option: value}
    with pytest.raises(ValueError, match=option):
        Transformer(width=8, layers=1, heads=1, head=8, hidden=8, **options)
