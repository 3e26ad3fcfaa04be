"""Films of episodes: what is drawn, how long they get, and what cannot be filmed."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from wm_core.contract.errors import SettingsError
from wm_core.training import films
from wm_core.training.collect import EnvAdapter
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.films import Films, can_film
from wm_core.training.players import RandomPlayer
from wm_core.training.tasks import spec_of


class Blind(gymnasium.Env):
    """Shows numbers alone; renders a red picture of 30x50 where it is asked to."""

    metadata = {"render_fps": 10, "render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode=None, length=5):
        self.render_mode, self.length = render_mode, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 0.5, False, self.t == self.length, {}

    def render(self):
        picture = np.zeros((30, 50, 3), np.uint8)
        picture[..., 0] = 255
        return picture


def film(env, folder, *, count=1, episodes=1):
    spec = spec_of(env)
    adapter = EnvAdapter(env, spec, np.random.default_rng(0))
    spectator = Films(folder, count, spec)
    run_episodes(
        adapter, RandomPlayer(spec.action), spec, episodes=episodes, seed=0, spectator=spectator
    )
    return spectator.written


def test_a_film_shows_every_step_enlarged_with_a_line_below(tmp_path):
    (path,) = film(Blind("rgb_array"), tmp_path / "films")
    with Image.open(path) as movie:
        assert movie.n_frames == 6  # the first picture, and one after each of 5 steps
        assert movie.size == (250, 150 + 18)  # by the whole factor 5
        movie.seek(5)
        last = np.asarray(movie.convert("RGB"))
    assert (last[:150] == (255, 0, 0)).all()
    assert (last[150:] > 128).any()  # letters
    assert last[150:].min() < 64


def test_only_the_first_episodes_are_filmed(tmp_path):
    written = film(Blind("rgb_array"), tmp_path, count=2, episodes=4)
    assert [path.name for path in written] == ["episode_000.gif", "episode_001.gif"]
    assert sorted(tmp_path.iterdir()) == written


def test_a_film_of_a_long_episode_keeps_a_bounded_number_of_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(films, "MAX_FRAMES", 10)
    (path,) = film(Blind("rgb_array", length=100), tmp_path)
    with Image.open(path) as movie:
        assert 5 <= movie.n_frames <= 11


def test_an_environment_that_renders_nothing_is_filmed_through_the_policys_eye(toy, tmp_path):
    adapter, spec = open_env(toy, seed=0, render=True)
    spectator = Films(tmp_path, 1, spec)
    player = RandomPlayer(spec.action)
    run_episodes(adapter, player, spec, episodes=1, seed=0, spectator=spectator)
    with Image.open(spectator.written[0]) as movie:
        assert movie.n_frames == 21
        assert movie.size == (256, 256 + 18)


def test_what_neither_renders_nor_sees_cannot_be_filmed(tmp_path):
    env = Blind()
    spec = spec_of(env)
    adapter = EnvAdapter(env, spec, np.random.default_rng(0))
    assert not can_film(adapter, spec)
    with pytest.raises(SettingsError, match="expected an environment that renders rgb_array"):
        film(env, tmp_path)


def test_an_environment_is_opened_for_pictures_where_it_offers_them():
    adapter, spec = open_env("CartPole-v1", seed=0, render=True)
    assert can_film(adapter, spec)
    adapter.env.close()
    adapter, spec = open_env("CartPole-v1", seed=0)
    assert not can_film(adapter, spec)
    adapter.env.close()
