"""Settings of environments: keywords, limits, repeats, sticky actions, gray images, proprio."""

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.cli.keyword_values import read_keywords
from wm_core.cli.main import main
from wm_core.config import Config
from wm_core.contract.errors import EnvFault, SettingsError
from wm_core.contract.spec import Spec
from wm_core.training.evaluate import open_env
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env, spec_of
from wm_core.training.wrappers import Checked


class Line(gymnasium.Env):
    """Counts its steps and pays 1 for each, until ``ends``."""

    metadata = {"render_fps": 10, "render_modes": []}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, ends: int = 1000, colour: bool = False, render_mode=None) -> None:
        picture = {"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)} if colour else {}
        place = {"place": spaces.Box(-np.inf, np.inf, (1,), np.float32)}
        self.observation_space = spaces.Dict(place | picture)
        self.ends, self.commands = ends, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        self.commands.append(float(action[0]))
        return self._obs(), 1.0, self.t >= self.ends, False, {}

    def _obs(self):
        obs = {"place": np.array([self.t], np.float32)}
        if "image" in self.observation_space.spaces:
            obs["image"] = np.full((64, 64, 3), (255, 0, 0), np.uint8)
        return obs


@pytest.fixture
def line():
    gymnasium.register("WmLine-v0", Line, max_episode_steps=50)
    yield "WmLine-v0"
    del gymnasium.registry["WmLine-v0"]


def episode(task, **settings):
    """Rewards, ends and places of one episode under actions of zero."""
    adapter, spec = open_env(task, seed=0, env=EnvConfig(**settings))
    states = [adapter.reset()]
    while not states[-1].is_last:
        states.append(adapter.step(np.zeros(spec.action.size, np.float32)))
    adapter.env.close()
    return states


def test_keywords_reach_the_constructor(line):
    assert make_env(line, EnvConfig(kwargs={"ends": 7})).unwrapped.ends == 7


def test_a_keyword_that_does_not_exist_is_named_with_the_nearest(line):
    with pytest.raises(SettingsError, match=r"'WmLine-v0'.*no keyword 'end'.*'ends'"):
        make_env(line, EnvConfig(kwargs={"end": 7}))
    with pytest.raises(SettingsError, match=r"max_episode_steps.*--env.time-limit"):
        make_env(line, EnvConfig(kwargs={"max_episode_steps": 7}))


@pytest.mark.parametrize(("limit", "length"), [(None, 50), (5, 5), (80, 80)])
def test_a_time_limit_takes_the_place_of_the_tasks_own(line, limit, length):
    states = episode(line, time_limit=limit)
    assert len(states) - 1 == length
    assert not states[-1].is_terminal


def test_a_repeated_action_adds_rewards_and_stops_at_the_end(line):
    states = episode(line, action_repeat=4, kwargs={"ends": 10})
    assert [s.reward for s in states] == [0.0, 4.0, 4.0, 2.0]
    assert states[-1].is_terminal
    settings = EnvConfig(action_repeat=4)
    assert spec_of(make_env(line, settings), settings).period_s == pytest.approx(0.4)


def test_a_limit_counts_agent_steps_and_the_tasks_own_its_steps(line):
    assert len(episode(line, action_repeat=4, time_limit=3)) - 1 == 3
    assert len(episode(line, action_repeat=4)) - 1 == 13


def test_sticky_actions_repeat_the_one_before(line):
    env = make_env(line, EnvConfig(sticky=0.5))
    env.reset(seed=0)
    for value in np.linspace(-1, 1, 40, dtype=np.float32):
        env.step(np.array([value], np.float32))
    sent = env.unwrapped.commands
    again = sum(a == b for a, b in itertools.pairwise(sent))
    assert 5 < again < 35


def test_gray_images_have_one_channel(line):
    settings = EnvConfig(gray=True, kwargs={"colour": True})
    adapter, spec = open_env(line, seed=0, env=settings)
    assert spec.images["image"].shape == (64, 64, 1)
    assert np.unique(adapter.state.obs["image"]).tolist() == [(77 * 255 + 128) >> 8]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gray": True}, "env.gray has no effect"),
        ({"image_size": 96}, "env.image_size has no effect"),
        ({"fit": "pad"}, "env.fit has no effect"),
        ({"proprio": True}, "env.proprio"),
        ({"life_loss": True}, "env.life_loss"),
    ],
)
def test_a_setting_without_effect_is_refused(line, settings, said):
    with pytest.raises(SettingsError, match=said):
        open_env(line, seed=0, env=EnvConfig(**settings))


@pytest.mark.mujoco
def test_own_tasks_are_drawn_at_the_size_and_measured_where_asked():
    settings = EnvConfig(image_size=96, proprio=True)
    adapter, spec = open_env("seek", seed=0, env=settings)
    assert spec.images["image"].shape == (96, 96, 3)
    assert adapter.env.observation_space["image"].shape == (96, 96, 3)
    assert spec.vectors["proprio"].size == 2
    adapter.env.close()
    # a policy of unknown settings says by its inputs what it needs
    adapter, _ = open_env("seek", seed=0, spec=spec)
    spec.check_obs(adapter.state.obs)
    adapter.env.close()


def test_the_first_reset_waits_for_the_first_look(line):
    rng = np.random.default_rng(7)
    adapter, _ = open_env(line, seed=rng)
    rng.bit_generator.state = np.random.default_rng(8).bit_generator.state
    adapter.reset()
    assert adapter.env.unwrapped.np_random_seed == int(np.random.default_rng(8).integers(2**31))


@pytest.mark.parametrize("stated", ["fast", 0, -5, float("nan"), float("inf"), [30]])
def test_a_rate_that_is_no_number_above_0_is_refused(stated):
    env = Line()
    env.metadata = {"render_fps": stated}
    with pytest.raises(SettingsError, match="render_fps is"):
        spec_of(env)


@pytest.mark.parametrize("metadata", [None, {}, {"render_fps": None}])
def test_an_environment_that_states_no_rate_has_20_hz(metadata):
    env = Line()
    env.metadata = metadata
    assert spec_of(Checked(env, "Line")).period_s == 0.05


def test_words_and_json_become_keywords():
    assert read_keywords(["n=3", "name=left", "deep={}", "on=True", "off=false", "x=-1.5"]) == {
        "n": 3, "name": "left", "deep": {}, "on": True, "off": False, "x": -1.5,
    }  # fmt: skip
    assert read_keywords(['{"n": 3}']) == {"n": 3}
    for words in (["n"], ["=3"], ["{n: 3}"]):
        with pytest.raises(ValueError, match="expected"):
            read_keywords(words)


def test_the_command_line_describes_a_task_with_its_settings(line, capsys):
    options = ("--env.kwargs", "ends=3", "colour=true", "--env.gray", "--env.image-size", "32")
    assert main(["tasks", line, "--json", *options]) == 0
    spec = Spec.model_validate_json(capsys.readouterr().out)
    assert spec.images["image"].shape == (32, 32, 1)


def test_settings_of_an_environment_are_kept_and_old_ones_read_as_the_defaults():
    config = Config(env=EnvConfig(kwargs={"n": [1, 2]}, time_limit=9))
    assert Config.model_validate_json(config.model_dump_json()) == config
    old = config.model_dump(mode="json")
    del old["env"]
    assert Config.model_validate(old).env == EnvConfig()


def raises():
    raise RuntimeError("the simulator\nis not there")


def test_a_constructor_that_raises_is_one_line():
    gymnasium.register("WmRaises-v0", raises)
    try:
        with pytest.raises(EnvFault, match="RuntimeError: the simulator is not there") as caught:
            make_env("WmRaises-v0")
    finally:
        del gymnasium.registry["WmRaises-v0"]
    assert "\n" not in str(caught.value)
