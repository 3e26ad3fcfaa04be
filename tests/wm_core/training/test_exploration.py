"""Random actions that are held, noise that is pink, and what of both reaches the store."""

import numpy as np
import pytest
import torch

from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec
from wm_core.library.run_folder import load_settings
from wm_core.store.reader import Store
from wm_core.training.agent_actor import AgentActor
from wm_core.training.collect import RandomActor
from wm_core.training.exploration import PinkNoise
from wm_core.training.settings import ExploreConfig

KINDS = {
    "continuous": ActionSpec(low=(-3.0, 0.0), high=(3.0, 1.0)),
    "choice": ActionSpec.choices(3),
    "choices": ActionSpec.several_choices((3, 2)),
}


def actions_of(actor, steps, rows=1, begins=()):
    """(steps, N, A) of ``actor``; an episode begins at step 0 and at those of ``begins``."""
    none = np.zeros((rows, 1), np.float32)
    return np.stack(
        [actor.act({}, none, np.full(rows, t == 0 or t in begins)) for t in range(steps)]
    )


def lengths(actions):
    """Lengths of the runs of equal actions in (steps, A)."""
    changes = np.flatnonzero((np.diff(actions, axis=0) != 0).any(-1)) + 1
    return np.diff([0, *changes, len(actions)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_action_is_held_for_so_many_steps_in_every_environment(kind):
    spec = KINDS[kind]
    actor = RandomActor(spec, np.random.default_rng(0), ExploreConfig(hold=4))
    taken = actions_of(actor, 40, rows=3)
    for row in range(3):
        assert (lengths(taken[:, row]) % 4 == 0).all()  # equal draws may follow one another
        assert len(np.unique(taken[:, row], axis=0)) > 1
    assert (taken[:, 0] != taken[:, 1]).any()
    if spec.discrete:
        assert spec.is_chosen(taken).all()


def test_an_episode_begins_with_an_action_of_its_own():
    actor = RandomActor(KINDS["continuous"], np.random.default_rng(0), ExploreConfig(hold=10))
    assert lengths(actions_of(actor, 20, begins=(7,))[:, 0]).tolist() == [7, 10, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_held_for_one_step_the_draws_are_those_of_every_earlier_version(kind):
    spec, rng = KINDS[kind], np.random.default_rng(5)
    taken = actions_of(RandomActor(spec, np.random.default_rng(5)), 6, rows=2)
    assert (taken == [[spec.random(rng), spec.random(rng)] for _ in range(6)]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_pink_actions_are_uniform_by_themselves_and_alike_from_step_to_step(kind):
    spec, rng = KINDS[kind], np.random.default_rng(0)
    actor = RandomActor(spec, rng, ExploreConfig(prefill_noise="pink"))
    taken = actions_of(actor, 40, rows=1500)
    late = taken[-1]  # of 1,500 environments, so that its draws are independent
    if spec.discrete:
        assert spec.is_chosen(taken).all()
        share = late.mean(0)
        assert share == pytest.approx([1 / n for n in spec.sizes for _ in range(n)], abs=0.05)
        same = (taken[1:] == taken[:-1]).all(-1).mean()
        assert same > 1.2 * np.prod([1 / n for n in spec.sizes])  # of draws without a memory
    else:
        counts, _ = np.histogram(late, bins=4, range=(-1, 1))
        assert counts / late.size == pytest.approx(0.25, abs=0.05)
        assert np.corrcoef(taken[1:].ravel(), taken[:-1].ravel())[0, 1] > 0.7


def test_the_spectrum_of_pink_noise_falls_as_one_over_frequency():
    noise = PinkNoise((400,), np.random.default_rng(0))
    uniforms = np.stack([noise.uniforms(np.array([t == 0]))[0] for t in range(512)])
    assert uniforms.min() >= 0.0
    assert uniforms.max() < 1.0
    power = (np.abs(np.fft.rfft(uniforms - 0.5, axis=0)) ** 2).mean(1)
    band = slice(4, 128)
    slope = np.polyfit(np.log(np.fft.rfftfreq(512)[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.2)


def test_the_same_seed_gives_the_same_actions():
    def drawn(explore):
        return actions_of(RandomActor(KINDS["choices"], np.random.default_rng(3), explore), 20)

    for explore in (ExploreConfig(hold=3), ExploreConfig(prefill_noise="pink", hold=2)):
        assert (drawn(explore) == drawn(explore)).all()


class Echo:
    """An agent whose action is the noise that decides it."""

    device = torch.device("cpu")

    def initial(self, n):
        return None

    def act(self, obs, carry, prev_action, is_first, *, mean, generator, noise=None):
        return (torch.zeros(len(is_first), 1) if noise is None else noise), carry


def test_a_policys_noise_is_pink_and_begins_anew_with_the_episode():
    def acts(*, noise):
        return AgentActor(Echo(), torch.Generator(), noise=noise)

    noise = PinkNoise((2,), np.random.default_rng(0))
    taken = actions_of(acts(noise=noise), 200, rows=50, begins=(100,))
    before, within = taken[98:100].reshape(2, -1), taken[150:152].reshape(2, -1)
    assert np.corrcoef(within)[0, 1] > 0.6
    assert abs(np.corrcoef(taken[99].ravel(), taken[100].ravel())[0, 1]) < 0.35
    assert np.corrcoef(before)[0, 1] > 0.6
    assert (actions_of(acts(noise=None), 3) == 0).all()


OPTIONS = (
    *("--train.steps", "80", "--train.updates", "1", "--no-publish"),
    *("--train.explore.hold", "4", "--train.explore.policy-noise", "pink"),
)


def test_a_run_keeps_how_it_explores_and_its_prefill_is_held(train_toy):
    run = train_toy(*OPTIONS)
    explore = load_settings(run).train.explore
    assert explore == ExploreConfig(hold=4, policy_noise="pink")
    with_random = Store(run / "store", cache_bytes=0)
    with_random.refresh()
    segment = with_random.segments[0]  # the first episode, of 20 steps
    steps = with_random.read(segment.rows(0, 20)[None])[0]
    with_random.close()
    assert (lengths(steps["action"][:20]) % 4 == 0).all()


def test_the_burst_after_the_prefill_is_as_large_as_it_says(train_toy, toy, tiny, capsys):
    """64 steps of prefill and 64 of the policy, at ratio 16 and 32 steps an update."""
    whole = train_toy("--train.steps", "128", "--no-publish")
    assert last_updates(whole) == 64
    few = train_toy("--train.steps", "128", "--no-publish", "--train.burst", "5")
    assert last_updates(few) == 5 + 32
    args = ("train", "--run", str(few), "--task", toy, "--resume", *tiny, "--no-publish")
    assert main([*args, "--train.steps", "128", "--train.burst", "9"]) == 2
    assert "--train.burst (this run has 5, got 9)" in capsys.readouterr().err


def test_a_run_of_fewer_steps_than_its_prefill_learns_from_all_of_them(train_toy):
    run = train_toy("--train.steps", "64", "--train.prefill", "1000", "--no-publish")
    assert last_updates(run) == 32


def last_updates(run):
    return int(sorted((run / "checkpoints").glob("0*.pt"))[-1].stem)
