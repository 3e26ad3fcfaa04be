"""With a posterior q(z | e), sequences are their steps, imagination goes on, and nothing leaks.

The reference for whatever is imagined is one pass over the whole sequence, dreamt states included.
"""

from __future__ import annotations

import pytest
import torch

from wm_core.nn.blocks import Style, initialize
from wm_core.world.base import Recorded
from wm_core.world.latent import Latent
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import make_dynamics

B, T, E, A = 3, 9, 6, 2
RESETS = ((1, 0), (1, 5), (2, 3), (2, 4))

KINDS = {
    "joint": {"tokens": "joint"},
    "all": {"tokens": "joint", "readout": "all", "positions": "sinusoid"},
    "split": {"tokens": "split", "positions": "xl", "order": "post"},
    "actions": {"tokens": "actions", "positions": "sinusoid"},
    "ssm": None,
    "lstm": None,
    "token_gru": None,
    "mdn": None,
}
TRANSFORMERS = [kind for kind, settings in KINDS.items() if settings]
REMEMBERING = [kind for kind, settings in KINDS.items() if not settings]
ACTING = [kind for kind in KINDS if kind not in ("split", "actions")]
LATENTS = ["categorical", "gaussian"]
EVERY = [(k, z) for k in KINDS for z in LATENTS if (k, z) != ("mdn", "categorical")]
every = pytest.mark.parametrize(("kind", "latent"), EVERY)
acting = pytest.mark.parametrize(("kind", "latent"), [(k, z) for k, z in EVERY if k in ACTING])


def config_of(kind, latent, *, window=64, **changes):
    if kind in TRANSFORMERS:
        settings = {"width": 12, "layers": 2, "heads": 2, "head": 4, "hidden": 16} | KINDS[kind]
        changes |= {"backbone": "transformer", "transformer": settings | {"window": window}}
    else:
        changes["backbone"] = "lstm" if kind == "mdn" else kind
        changes |= {"prior": "mdn", "kl": {"rep": "unit"}} if kind == "mdn" else {}
    return WorldConfig(
        latent=latent, categorical={"groups": 2, "classes": 3}, gaussian={"size": 4},
        lstm={"deter": 8, "hidden": 10}, token_gru={"deter": 8, "hidden": 10},
        posterior={"units": 10}, net={"units": 10},
        ssm={"deter": 8, "state": 8, "layers": 2, "blocks": 2}, **changes,
    )  # fmt: skip


def make(kind, latent, **changes):
    model = make_dynamics(config_of(kind, latent, **changes), E, A, Style())
    generator = torch.Generator().manual_seed(1)
    initialize(model, generator)
    with torch.no_grad():  # nothing stays at its initial zero or one
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


class Data:
    """Random experience of ``T`` steps, some of them first ones."""

    def __init__(self, model, generator, *, resets=RESETS):
        self.embed = torch.randn(B, T, E, generator=generator)
        self.action = torch.rand(B, T, A, generator=generator) * 2 - 1
        self.reward = torch.randn(B, T, generator=generator)
        self.uniform = torch.rand(B, T, *model.latent_dist.shape, generator=generator)
        self.is_first = torch.zeros(B, T, dtype=torch.bool)
        for b, t in resets:
            self.is_first[b, t] = True

    def observed(self, model, start=None):
        start = model.initial(B) if start is None else start
        steps = Recorded(self.action, self.embed, self.is_first, self.reward)
        return model.observe(start, steps, self.uniform)


def dreams(model, generator, n, steps):
    """Actions (n, steps, A) and uniforms (n, steps, ...) of a dream."""
    action = torch.rand(n, steps, A, generator=generator) * 2 - 1
    return action, torch.rand(n, steps, *model.prior.noise_shape, generator=generator)


def dream(model, latent, action, uniform, reward):
    """The latents, one step at a time; ``reward`` (n, steps) arrived before each."""
    seen = []
    for t in range(action.shape[1]):
        latent = model.imagine_step(latent, action[:, t], uniform[:, t], reward=reward[:, t])
        seen.append(latent)
    deter = torch.stack([x.deter for x in seen], 1)
    return Latent(deter, torch.stack([x.stoch for x in seen], 1))


def in_one_pass(model, monkeypatch, stoch, action, reward, is_first):
    """deter (B, N, D) of a sequence whose states (B, N, ...) are already known."""
    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_posterior", lambda embed, uniform: (stoch, stoch))
        steps = Recorded(action, None, is_first, reward)
        return model.observe(model.initial(len(stoch)), steps, None).deter


# ------------------------------------------------------------------ along data


@acting
def test_a_sequence_is_its_steps_with_resets(kind, latent, generator):
    """Longer than a transformer's window."""
    model = make(kind, latent, window=4)
    data, before = Data(model, generator), model.initial(B)
    if model.remembers:  # a window of replay may begin anywhere
        memory = tuple(torch.randn(m.shape, generator=generator) for m in before.memory)
        stoch = torch.rand(before.stoch.shape, generator=generator)
        before = Latent(before.deter, stoch, None, memory)
    with torch.no_grad():
        whole = data.observed(model, before)
        for t in range(T):
            before = model.observe_step(
                before, data.action[:, t], data.embed[:, t], data.is_first[:, t],
                data.uniform[:, t],
            )  # fmt: skip
            torch.testing.assert_close(before.deter, whole.deter[:, t], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(before.stoch, whole.stoch[:, t])
            torch.testing.assert_close(before.params, whole.params[:, t])


@acting
def test_a_carry_is_all_that_the_next_step_needs(kind, latent, generator):
    model = make(kind, latent, window=4)
    data, now = Data(model, generator), model.initial(B)

    def step(latent, t):
        given = data.action[:, t], data.embed[:, t], data.is_first[:, t], data.uniform[:, t]
        return model.observe_step(latent, *given)

    with torch.no_grad():
        for t in range(3):
            now = step(now, t)
        carry = model.carry_of(now)
        assert len(carry) == len(model.carry_names)
        direct, carried = step(now, 3), step(model.latent_of(carry), 3)
    assert torch.equal(direct.deter, carried.deter)
    assert torch.equal(direct.stoch, carried.stoch)


@acting
def test_a_carry_of_zeros_has_seen_nothing(kind, latent, generator):
    model = make(kind, latent, window=4)
    data = Data(model, generator)
    given = data.action[:, 1], data.embed[:, 1], data.is_first[:, 1], data.uniform[:, 1]
    zeros = tuple(torch.zeros_like(c) for c in model.carry_of(model.initial(B)))
    with torch.no_grad():
        one = model.observe_step(model.initial(B), *given)
        other = model.observe_step(model.latent_of(zeros), *given)
    assert torch.equal(one.deter, other.deter)


def reached(output, inputs):
    """For each of ``inputs`` (B, T, ...), which times ``output`` () depends on: (B, T) bool."""
    slopes = torch.autograd.grad(output, inputs, retain_graph=True, allow_unused=True)
    return [
        torch.zeros(B, T, dtype=torch.bool) if s is None else s.reshape(B, T, -1).any(-1)
        for s in slopes
    ]


def begin_of(row, t):
    return max([0, *(s for b, s in RESETS if b == row and s <= t)])


@every
def test_a_state_depends_on_its_episode_s_past_and_on_nothing_else(kind, latent, generator):
    """``deter`` on what was before, the posterior on what is seen now, both by gradient."""
    model = make(kind, latent)
    data = Data(model, generator)
    inputs = [x.requires_grad_() for x in (data.embed, data.action, data.reward)]
    seen = data.observed(model)
    direct = kind == "actions"  # no state of the past is an input, but for the first
    for row, t in ((0, 8), (1, 4), (1, 5), (1, 8), (2, 4), (2, 7)):
        begin = begin_of(row, t)
        by_embed, by_action, by_reward = reached(seen.deter[row, t].square().sum(), inputs)
        for other in set(range(B)) - {row}:
            assert not any(by[other].any() for by in (by_embed, by_action, by_reward))
        past = [begin] if direct else list(range(begin, t))
        assert by_embed[row].nonzero().flatten().tolist() == past
        # the action that led to a first step does not count
        led = list(range(begin + (row != 0 or direct), t + 1))
        assert by_action[row].nonzero().flatten().tolist() == led
        paid = list(range(begin, t)) if kind == "split" else []
        assert by_reward[row].nonzero().flatten().tolist() == paid
        now, *rest = reached(seen.params[row, t].square().sum(), inputs)
        assert now.nonzero().tolist() == [[row, t]]
        assert not any(by.any() for by in rest)


@pytest.mark.parametrize(("kind", "latent"), [(k, z) for k, z in EVERY if k in REMEMBERING])
def test_a_window_s_memory_reaches_back_to_its_last_first_step_alone(kind, latent, generator):
    model = make(kind, latent)
    assert model.remembers
    data, empty = Data(model, generator), model.initial(B)
    memory = tuple(
        torch.randn(m.shape, generator=generator).requires_grad_() for m in empty.memory
    )
    stoch = torch.rand(empty.stoch.shape, generator=generator).requires_grad_()
    seen = data.observed(model, Latent(empty.deter, stoch, None, memory))
    slopes = torch.autograd.grad(seen.deter[:, 6].square().sum(), (*memory, stoch))
    for slope in slopes:
        assert [bool(s.any()) for s in slope] == [True, False, False]


@every
def test_staged_gradients_do_not_pass_from_deter_to_the_posterior(kind, latent, generator):
    model = make(kind, latent, gradients="staged", decoder={"reads": "stoch"})
    data = Data(model, generator)
    data.embed.requires_grad_()
    seen = data.observed(model)
    (slope,) = torch.autograd.grad(seen.deter.square().sum(), data.embed, allow_unused=True)
    assert slope is None or not slope.any()
    (slope,) = torch.autograd.grad(seen.stoch.square().sum(), data.embed)
    assert slope.any()


@every
def test_an_encoded_posterior_is_the_posterior_of_that_step(kind, latent, generator):
    model = make(kind, latent)
    data = Data(model, generator)
    with torch.no_grad():
        seen = data.observed(model)
        stoch, params = model.encode_posterior(data.embed[:, 6], data.uniform[:, 6])
    torch.testing.assert_close(stoch, seen.stoch[:, 6])
    torch.testing.assert_close(params, seen.params[:, 6])


@pytest.mark.parametrize("kind", [*TRANSFORMERS, "ssm"])
def test_dropout_is_decided_by_its_generator_and_absent_without_one(kind, generator):
    model = make(kind, "categorical")
    part, config = "ssm" if kind == "ssm" else "transformer", config_of(kind, "categorical")
    settings = getattr(config, part).model_copy(update={"dropout": 0.5})
    dropping = make_dynamics(config.model_copy(update={part: settings}), E, A, Style())
    dropping.load_state_dict(model.state_dict())
    data = Data(model, generator)

    def deter(net, seed):
        drops = None if seed is None else torch.Generator().manual_seed(seed)
        steps = Recorded(data.action, data.embed, data.is_first, data.reward)
        with torch.no_grad():
            return net.observe(net.initial(B), steps, data.uniform, drops).deter

    assert torch.equal(deter(dropping, None), deter(model, None))
    assert torch.equal(deter(dropping, 1), deter(dropping, 1))
    assert not torch.equal(deter(dropping, 1), deter(dropping, 2))


# ------------------------------------------------------------------ in imagination


@pytest.mark.parametrize(
    ("kind", "latent", "window"),
    [(k, z, 64) for k, z in EVERY] + [(k, z, 4) for k, z in EVERY if k in TRANSFORMERS],
)
def test_a_dream_is_the_continuation_of_one_pass_over_all_of_it(
    kind, latent, window, generator, monkeypatch
):
    """From two times of every window on, further than a transformer sees."""
    steps, times = 10, torch.tensor([2, 6])
    model = make(kind, latent, window=window)
    data = Data(model, generator)
    action, uniform = dreams(model, generator, B * 2, steps)
    reward = torch.randn(B * 2, steps, generator=generator)
    with torch.no_grad():
        seen = data.observed(model)
        start = model.imagination_starts(seen, times)
        dreamt = dream(model, start, action, uniform, reward)
        for row in range(B):
            for i, t in enumerate(times.tolist()):
                n = row * 2 + i  # b-major
                begin = t if kind == "actions" else 0  # a dream's past is its start alone
                past = slice(begin, t + 1)
                whole = in_one_pass(
                    model, monkeypatch,
                    torch.cat([seen.stoch[row, past], dreamt.stoch[n]])[None],
                    torch.cat([data.action[row, past], action[n]])[None],
                    torch.cat([data.reward[row, begin:t], reward[n], torch.zeros(1)])[None],
                    torch.cat([data.is_first[row, past], torch.zeros(steps, dtype=bool)])[None],
                )  # fmt: skip
                rest = whole[0, t + 1 - begin :]
                torch.testing.assert_close(dreamt.deter[n], rest, rtol=1e-4, atol=2e-5)
                torch.testing.assert_close(start.stoch[n], seen.stoch[row, t])
        guess = model.prior(dreamt.deter)
        torch.testing.assert_close(dreamt.stoch, model.prior.sample(guess, uniform))


@every
def test_a_dream_has_gradients_to_its_actions_but_none_to_its_memory(kind, latent, generator):
    model = make(kind, latent)
    data = Data(model, generator)
    data.embed.requires_grad_()
    with torch.no_grad():
        start = model.imagination_starts(data.observed(model), torch.tensor([3]))
    assert not any(m.requires_grad for m in start.memory)
    action, uniform = dreams(model, generator, B, 4)
    action.requires_grad_()
    dreamt = dream(model, start, action, uniform, torch.zeros(B, 4))
    (slope,) = torch.autograd.grad(dreamt.deter[:, -1].square().sum(), action)
    assert (slope.abs().sum(-1) > 0).all()


@every
def test_an_action_beyond_its_range_counts_as_clipped(kind, latent, generator):
    model = make(kind, latent)
    data = Data(model, generator)
    with torch.no_grad():
        start = model.imagination_starts(data.observed(model), torch.tensor([3]))
        _, uniform = dreams(model, generator, B, 1)
        far, near = (
            model.imagine_step(
                start, torch.tensor([[x, -x]] * B), uniform[:, 0], reward=torch.zeros(B)
            )
            for x in (5.0, 1.0)
        )
        clipped = data.observed(model)
        data.action = data.action * 10
        far_seen = data.observed(model)
        data.action = data.action.clamp(-1, 1)
        near_seen = data.observed(model)
    assert torch.equal(far.deter, near.deter)
    assert torch.equal(far_seen.deter, near_seen.deter)
    assert not torch.equal(far_seen.deter, clipped.deter)


@every
def test_a_temperature_changes_the_draw_and_not_the_path_to_it(kind, latent, generator):
    model = make(kind, latent)
    data = Data(model, generator)
    with torch.no_grad():
        if latent == "categorical":  # an untrained prior is as surprising as can be
            model.prior.out.weight.mul_(30.0)
        start = model.imagination_starts(data.observed(model), torch.tensor([3]))
        action, uniform = dreams(model, generator, B, 1)
        given = {"action": action[:, 0], "uniform": uniform[:, 0], "reward": torch.zeros(B)}
        plain = model.imagine_step(start, **given)
        same = model.imagine_step(start, **given, temperature=1.0)
        hot = model.imagine_step(start, **given, temperature=50.0)
    assert torch.equal(plain.stoch, same.stoch)
    assert torch.equal(plain.deter, hot.deter)
    assert not torch.equal(plain.stoch, hot.stoch)


# ------------------------------------------------------------------ split tokens


def test_split_tokens_are_the_reward_then_the_state_then_the_action(generator):
    model = make("split", "gaussian")
    inputs = torch.randn(2, 4), torch.randn(2, A), torch.randn(2)
    tokens = model.reader(*inputs)
    assert tokens.shape == (2, 3, 12)
    for place, moved in ((0, 2), (1, 0), (2, 1)):
        other = [x + 1.0 if i == moved else x for i, x in enumerate(inputs)]
        changed = (model.reader(*other) != tokens).any(-1).any(0)
        assert changed.tolist() == [i == place for i in range(3)]


def test_a_state_knows_the_reward_of_the_step_before_and_not_its_own(generator):
    model = make("split", "categorical")
    data = Data(model, generator, resets=())
    seen = data.observed(model)
    data.reward = data.reward.clone()
    data.reward[:, 4] += 1.0
    other = data.observed(model)
    torch.testing.assert_close(seen.deter[:, :5], other.deter[:, :5])
    assert (seen.deter[:, 5] != other.deter[:, 5]).any(-1).all()


# ------------------------------------------------------------------ actions alone


@pytest.mark.parametrize("latent", LATENTS)
def test_a_dream_of_actions_at_once_is_the_dream_step_by_step(latent, generator):
    model = make("actions", latent)
    data = Data(model, generator)
    action, uniform = dreams(model, generator, B, 6)
    with torch.no_grad():
        start = model.imagination_starts(data.observed(model), torch.tensor([4]))
        one_by_one = dream(model, start, action, uniform, torch.zeros(B, 6))
        at_once = model.imagine_all(start, action, uniform)
    torch.testing.assert_close(at_once.deter, one_by_one.deter, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(at_once.stoch, one_by_one.stoch, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("latent", LATENTS)
def test_a_late_state_s_gradient_reaches_an_early_action_past_all_states_between(
    latent, generator
):
    """With every state between cut out of the graph it is still there, and the same."""
    model = make("actions", latent)
    data = Data(model, generator)
    action, uniform = dreams(model, generator, B, 6)
    action.requires_grad_()
    with torch.no_grad():
        start = model.imagination_starts(data.observed(model), torch.tensor([4]))
    at_once = model.imagine_all(start, action, uniform)
    (whole,) = torch.autograd.grad(at_once.deter[:, -1].square().sum(), action)
    now = start
    for t in range(6):
        nonsense = torch.randn(start.stoch.shape, generator=generator)
        now = Latent(torch.zeros_like(now.deter), nonsense, None, now.memory)
        now = model.imagine_step(now, action[:, t], uniform[:, t])
    (cut,) = torch.autograd.grad(now.deter.square().sum(), action)
    assert (cut[:, 0].abs() > 0).any(-1).all()
    torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("latent", LATENTS)
def test_a_window_is_the_dream_of_its_actions_from_its_first_state(latent, generator):
    model = make("actions", latent)
    data = Data(model, generator, resets=())
    with torch.no_grad():
        seen = data.observed(model)
        start = model.imagination_starts(seen, torch.tensor([0]))
        uniform = torch.rand(B, T - 1, *model.prior.noise_shape, generator=generator)
        dreamt = model.imagine_all(start, data.action[:, 1:], uniform)
    torch.testing.assert_close(start.deter, seen.deter[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dreamt.deter, seen.deter[:, 1:], rtol=1e-4, atol=1e-5)


def test_only_a_model_of_action_tokens_imagines_in_one_pass(generator):
    model = make("joint", "categorical")
    start = model.initial(B)
    with pytest.raises(ValueError, match="expected tokens 'actions', got 'joint'"):
        model.imagine_all(start, *dreams(model, generator, B, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_of_action_tokens_is_not_predictable(kind):
    model = make(kind, "gaussian")
    is_first = torch.tensor([[False, False, True, False], [True, False, False, False]])
    predictable = model.predictable(is_first)
    if kind == "actions":
        assert predictable.tolist() == [[False, True, False, True], [False, True, True, True]]
    else:
        assert predictable is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_past_gives_no_untrained_model_enormous_gradients(kind, generator):
    """A norm of zeros multiplies gradients by hundreds, in each of a deep model's layers."""
    config = config_of(kind, "gaussian")
    deep = {
        "transformer": config.transformer.model_copy(update={"layers": 10}),
        "ssm": config.ssm.model_copy(update={"layers": 10}),
    }
    model = make_dynamics(config.model_copy(update=deep), E, A, Style())
    initialize(model, torch.Generator().manual_seed(1))

    def size(resets):
        data = Data(model, generator, resets=resets)
        data.action = data.action * 0
        data.reward = data.reward * 0
        deter = data.observed(model).deter
        slope = torch.randn(deter.shape, generator=generator)
        weights = list(model.backbone.parameters()) + list(model.reader.parameters())
        slopes = torch.autograd.grad((deter * slope).sum(), weights, allow_unused=True)
        return torch.stack([s.norm() for s in slopes if s is not None]).norm().item()

    everywhere = [(b, t) for b in range(B) for t in range(T)]
    assert 0 < size(everywhere) < 30 * size([])
