"""Tasks by name, and the spec that follows from an environment's spaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec
from wm_core.training.evaluate import open_env
from wm_core.training.spaces import ObsReader
from wm_core.training.tasks import make_env, spec_of


class Shaped(gymnasium.Env):
    """An environment of given spaces."""

    def __init__(self, seen: spaces.Space, done: spaces.Space) -> None:
        self.observation_space, self.action_space = seen, done
        self.metadata = {"render_fps": 25, "action_units": ("m/s", "rad/s")}


class Drawn(gymnasium.Env):
    """A dot that can be drawn; wider than high, so that the sides are cropped."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
    metadata = {"render_fps": 10, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1), {}

    def step(self, action):
        self.t += 1
        return np.full(1, 0.1 * self.t), 0.0, False, False, {}

    def render(self):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[:, 30 + self.t] = 200
        return frame


class Blind(Drawn):
    def render(self):
        return None


def needs():
    raise gymnasium.error.DependencyNotInstalled("Box3D is not installed")


@pytest.fixture
def drawn():
    for name, made in (("WmDrawn-v0", Drawn), ("WmBlind-v0", Blind), ("WmNeeds-v0", needs)):
        gymnasium.register(name, made)
    yield
    for name in ("WmDrawn-v0", "WmBlind-v0", "WmNeeds-v0"):
        del gymnasium.registry[name]


BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 3.0], np.float32))


def test_spec_has_the_environments_rate_units_and_bounds():
    env = Shaped(spaces.Box(0, 255, (96, 128, 3), np.uint8), BOX)
    spec = spec_of(env)
    assert spec.period_s == 0.04
    assert spec.images["image"].shape == (64, 64, 3)
    assert (spec.action.low, spec.action.high) == ((-1.0, 0.0), (1.0, 3.0))
    assert spec.action.units == ("m/s", "rad/s")


def test_larger_frames_are_resized_as_on_a_robot():
    env = Shaped(spaces.Box(0, 255, (128, 128, 3), np.uint8), BOX)
    frame = np.full((128, 128, 3), 9, np.uint8)
    obs = ObsReader(env.observation_space, {}).read(frame, spec_of(env))
    assert obs["image"].shape == (64, 64, 3)
    assert (obs["image"] == 9).all()


def test_a_plain_vector_is_an_input_too():
    env = Shaped(spaces.Box(-1, 1, (4,), np.float64), BOX)
    spec = spec_of(env)
    obs = ObsReader(env.observation_space, {}).read(np.zeros(4), spec)
    assert obs["vector"].dtype == np.float32
    spec.check_obs(obs)


def test_every_part_of_an_observation_becomes_an_image_or_a_vector():
    seen = spaces.Dict(
        {
            "gray": spaces.Box(0, 255, (70, 80), np.uint8),
            "mono": spaces.Box(0, 255, (64, 64, 1), np.uint8),
            "table": spaces.Box(-1, 1, (2, 3), np.float64),
            "number": spaces.Box(-1, 1, (), np.float32),
            "room": spaces.Discrete(4, start=-1),
        }
    )
    spec = spec_of(Shaped(seen, BOX))
    assert {k: s.channels for k, s in spec.images.items()} == {"gray": 1, "mono": 1}
    assert {k: s.size for k, s in spec.vectors.items()} == {"table": 6, "number": 1, "room": 4}
    raw = seen.sample() | {"room": np.int64(1)}
    obs = ObsReader(seen, {}).read(raw, spec)
    spec.check_obs(obs)
    np.testing.assert_allclose(obs["table"], raw["table"].ravel(), rtol=1e-6)
    assert obs["room"].tolist() == [0, 0, 1, 0]


def test_a_discrete_observation_becomes_a_one_hot_vector():
    env = Shaped(spaces.Discrete(3), BOX)
    spec = spec_of(env)
    assert ObsReader(env.observation_space, {}).read(2, spec)["vector"].tolist() == [0, 0, 1]


def test_choices_have_the_names_and_the_stop_that_the_environment_says():
    env = Shaped(spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(3, start=7))
    env.metadata |= {"action_names": ["left", "stay", "right"], "action_noop": 1}
    action = spec_of(env).action
    assert action == ActionSpec.choices(3, ("left", "stay", "right"), noop=1)


def test_a_users_own_task_is_found_by_module_and_id(toy):
    env = make_env(toy)
    assert spec_of(env).period_s == 0.1


def test_an_unknown_id_or_module_is_named_in_the_error(toy):
    with pytest.raises(SettingsError, match="no such id"):
        make_env("wm_toy_dot:Nothing-v0")
    with pytest.raises(SettingsError, match="not installed"):
        make_env("no_such_module_here:Task-v0")


def test_any_gymnasium_id_is_a_task():
    env = make_env("CartPole-v1")
    spec = spec_of(env)
    assert (spec.vectors["vector"].size, spec.action.size, spec.action.discrete) == (4, 2, True)
    assert spec.period_s == 0.02
    assert not spec_of(make_env("Pendulum-v1")).action.discrete
    with pytest.raises(SettingsError, match="did you mean 'CartPole-v1'"):
        make_env("CartPol-v1")
    with pytest.raises(SettingsError, match=r"no such id.*Nowhere"):
        make_env("Nowhere/Door-v0")


@pytest.mark.parametrize("task", ["CartPole-v1", "WmDrawn-v0"])
@pytest.mark.parametrize("view", ["pixels", "both"])
def test_a_task_can_give_its_rendered_frames_as_images(drawn, task, view):
    if task == "CartPole-v1":
        pytest.importorskip("pygame")
    adapter, spec = open_env(f"{task}@{view}", seed=0)
    assert spec.images["image"].shape == (64, 64, 3)
    assert set(spec.vectors) == ({"vector"} if view == "both" else set())
    first = adapter.state.obs
    spec.check_obs(first)
    for _ in range(5):
        now = adapter.step(spec.action.random(np.random.default_rng(0)))
    assert not np.array_equal(now.obs["image"], first["image"])
    adapter.env.close()


def test_a_task_that_cannot_render_is_refused_in_one_line(drawn):
    with pytest.raises(SettingsError, match="did you mean 'pixels'"):
        make_env("CartPole-v1@pixel")
    for task in ("WmBlind-v0@pixels", "WmNeeds-v0"):
        with pytest.raises(SettingsError, match="cannot be made") as caught:
            make_env(task)
        assert "\n" not in str(caught.value)


@pytest.mark.mujoco
def test_a_typo_names_the_nearest_task():
    with pytest.raises(SettingsError, match="did you mean 'walker_walk'"):
        make_env("walkr_walk")


def test_a_sentence_that_names_a_robots_task_is_cut_and_said_to_be_no_environment():
    with pytest.raises(SettingsError, match=r"^task 'put the pear.* \.\.\.' cannot be made: exp"):
        make_env("put the pear on the plate; " * 9)


def test_a_task_that_comes_in_batches_alone_is_refused_in_one_line():
    gymnasium.register("WmBatchesAlone-v0", vector_entry_point=lambda num_envs: None)
    try:
        with pytest.raises(SettingsError, match="vector_entry_point alone, expected an entry_po"):
            make_env("WmBatchesAlone-v0")
    finally:
        gymnasium.registry.pop("WmBatchesAlone-v0")


def test_a_module_in_the_working_folder_is_named_with_the_cure(tmp_path, monkeypatch):
    (tmp_path / "my_zoo_of_tasks.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"lies in the working folder.*PYTHONPATH=\. wm"):
        make_env("my_zoo_of_tasks:Lion-v0")


@pytest.mark.mujoco
@pytest.mark.parametrize("task", ["Ant-v5", "HalfCheetah-v5"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gymnasiums_own_mujoco_tasks_run(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings there
    env = make_env(task)
    spec = spec_of(env)
    env.reset(seed=0)
    env.step(np.zeros(spec.action.size, np.float32))
    env.close()
    assert [*spec.inputs] == ["vector"]
