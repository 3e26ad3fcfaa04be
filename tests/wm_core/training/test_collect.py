"""What is recorded of an environment: every field timed as the contract says."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import StoreError
from wm_core.format.chunk import decode_chunk
from wm_core.replay.sampler import Sampler
from wm_core.store import env_recorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.collect import Collector, EnvAdapter, RandomActor
from wm_core.training.tasks import spec_of

LENGTH = 5  #: agent steps until an episode ends


class Counter(gymnasium.Env):
    """Observation t is the number t; the reward for arriving there is 10 t; it ends at LENGTH."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    action_space = spaces.Box(np.array([0.0], np.float32), np.array([8.0], np.float32))
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, terminal: bool = True, broken_at: int = -1) -> None:
        self.terminal, self.broken_at = terminal, broken_at
        self.commands: list[float] = []

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.commands.append(float(action[0]))
        self.t += 1
        reward = float("nan") if self.t == self.broken_at else 10.0 * self.t
        ended = self.t == LENGTH
        seen = np.array([self.t], np.float32)
        return seen, reward, ended and self.terminal, ended and not self.terminal, {}


class Rising:
    """Action t is t / 10, whatever is seen; remembers what it was told."""

    version = 7

    def __init__(self) -> None:
        self.told: list[tuple[float, bool]] = []

    def act(self, obs, prev_action, is_first):
        self.told.append((float(prev_action[0, 0]), bool(is_first[0])))
        return (obs["vector"] / 10).astype(np.float32)


def record(tmp_path, env, ticks: int, actor=None):
    """The steps that ``ticks`` of one environment leave in the store, and the actor."""
    spec = spec_of(env)
    ledger = Ledger(tmp_path / LEDGER_NAME)
    record = env_recorder.EnvRecorder(
        tmp_path, ledger, robot="sim-0", task="count", spec=spec, seal_steps=4
    )
    collector = Collector([EnvAdapter(env, spec, np.random.default_rng(0))], [record], spec)
    actor = actor or Rising()
    episodes = collector.collect(actor, ticks)
    collector.close()
    steps, metas = [], []
    for path in sorted(tmp_path.glob("sim-0/*/*.mcap")):
        meta, chunk = decode_chunk(path.read_bytes())
        metas.append(meta)
        steps += chunk
    for row, meta in zip(ledger.since(0), metas, strict=True):
        assert (row.first_step, row.steps) == (meta.first_step, meta.steps)
    ledger.close()
    return steps, episodes, actor


def test_reward_arrives_with_the_observation_that_the_action_led_to(tmp_path):
    steps, _, _ = record(tmp_path, Counter(), LENGTH + 1)
    assert [float(s.obs["vector"][0]) for s in steps] == [0, 1, 2, 3, 4, 5]
    assert [s.reward for s in steps] == [0, 10, 20, 30, 40, 50]
    assert [round(float(s.action[0]), 5) for s in steps] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.0]
    assert {s.policy_version for s in steps} == {7}


@pytest.mark.parametrize("terminal", [True, False])
def test_the_last_observation_is_recorded_and_says_how_it_ended(tmp_path, terminal):
    steps, episodes, _ = record(tmp_path, Counter(terminal), LENGTH + 3)
    assert [s.is_first for s in steps] == [True, *[False] * 5, True, False]
    assert [s.is_last for s in steps] == [*[False] * 5, True, False, False]
    assert [s.is_terminal for s in steps] == [*[False] * 5, terminal, False, False]
    assert [(e.total, e.length) for e in episodes] == [(150.0, 5)]


def test_the_environment_gets_physical_units_and_the_actor_what_was_sent(tmp_path):
    env = Counter()
    _, _, actor = record(tmp_path, env, LENGTH + 2)
    # An action a in [-1, 1] is 4 + 4 a in the environment's 0 .. 8.
    assert env.commands == pytest.approx([4.0, 4.4, 4.8, 5.2, 5.6, 4.0])
    assert [first for _, first in actor.told] == [True, *[False] * 5, True]
    assert actor.told[-1][0] == 0.0  # nothing led to the first step of the next episode
    assert [a for a, _ in actor.told[:5]] == pytest.approx([0.0, 0.0, 0.1, 0.2, 0.3])


class Choosing(Counter):
    """The same with two choices that count from 1."""

    action_space = spaces.Discrete(2, start=1)

    def step(self, action):
        return super().step([action])


def test_choices_are_recorded_one_hot_and_sent_as_the_environments_integers(tmp_path):
    spec = spec_of(Choosing())
    ledger = Ledger(tmp_path / LEDGER_NAME)
    kept = env_recorder.EnvRecorder(tmp_path, ledger, robot="sim-0", task="choose", spec=spec)
    env = Choosing()
    collector = Collector([EnvAdapter(env, spec, np.random.default_rng(0))], [kept], spec)
    collector.collect(RandomActor(spec.action, np.random.default_rng(0)), 8 * (LENGTH + 1))
    collector.close()
    [chunk] = tmp_path.glob("sim-0/*/*.mcap")
    _, steps = decode_chunk(chunk.read_bytes())
    sent = np.stack([s.action for s in steps if not s.is_last])
    assert set(map(tuple, sent.tolist())) == {(1.0, 0.0), (0.0, 1.0)}
    assert env.commands == [1 + a.argmax() for a in sent]
    assert all((s.action == 0).all() for s in steps if s.is_last)  # nothing was sent there
    store = Store(tmp_path, cache_bytes=10**6)
    store.refresh()
    rng = np.random.default_rng(0)
    batch = Sampler(store, batch=8, length=4, rng=rng, online_queue=False).sample()
    assert set(np.unique(batch.prev_action)) == {0.0, 1.0}
    np.testing.assert_array_equal(batch.prev_action.sum(-1), ~batch.is_first)
    store.close()
    ledger.close()


def test_stamps_advance_by_the_period_of_the_environment(tmp_path):
    steps, _, _ = record(tmp_path, Counter(), 8)
    assert set(np.diff([s.stamp_ns for s in steps])) == {100_000_000}


def test_a_step_with_a_nan_is_kept_and_marked(tmp_path):
    steps, _, _ = record(tmp_path, Counter(broken_at=2), LENGTH + 1)
    assert [s.is_valid for s in steps] == [True, True, False, True, True, True]


def test_a_chunk_that_the_store_refuses_stops_collection(tmp_path, monkeypatch):
    small = partial(env_recorder.ingest, max_bytes=10)
    monkeypatch.setattr(env_recorder, "ingest", small)
    with pytest.raises(StoreError, match=r"was not stored .too_large"):
        record(tmp_path, Counter(), LENGTH)


class Foggy(Counter):
    """Shows a gray image of floats, which is NaN at step 2."""

    observation_space = spaces.Box(0.0, 1.0, (32, 32, 1), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._image(), {}

    def step(self, action):
        after = super().step(action)
        return self._image(), *after[1:]

    def _image(self):
        return np.full((32, 32, 1), np.nan if self.t == 2 else 0.5, np.float32)


def test_a_step_whose_image_is_not_finite_is_kept_out_of_training(tmp_path):
    env = Foggy()
    explorer = RandomActor(spec_of(env).action, np.random.default_rng(0))
    steps, _, _ = record(tmp_path, env, LENGTH + 1, explorer)
    assert [s.is_valid for s in steps] == [True, True, False, True, True, True]
    assert steps[2].obs["image"].max() == 0
    assert steps[1].obs["image"].max() == 128
