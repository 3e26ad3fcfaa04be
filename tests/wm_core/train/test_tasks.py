"""Tasks by name, and the spec that follows from an environment's spaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.train.tasks import make_env, spec_of, to_obs


class Shaped(gymnasium.Env):
    """An environment of given spaces."""

    def __init__(self, seen: spaces.Space, done: spaces.Space) -> None:
        self.observation_space, self.action_space = seen, done
        self.metadata = {"render_fps": 25, "action_units": ("m/s", "rad/s")}


BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 3.0], np.float32))


def test_spec_has_the_environments_rate_units_and_bounds():
    env = Shaped(spaces.Box(0, 255, (96, 128, 3), np.uint8), BOX)
    spec = spec_of(env)
    assert spec.period_s == 0.04
    assert spec.images["image"].shape == (64, 64, 3)
    assert (spec.action.low, spec.action.high) == ((-1.0, 0.0), (1.0, 3.0))
    assert spec.action.units == ("m/s", "rad/s")


def test_larger_frames_become_what_a_robot_would_record():
    env = Shaped(spaces.Box(0, 255, (128, 128, 3), np.uint8), BOX)
    frame = np.full((128, 128, 3), 9, np.uint8)
    obs = to_obs(frame, spec_of(env))
    assert obs["image"].shape == (64, 64, 3)
    assert (obs["image"] == 9).all()


def test_a_plain_vector_is_an_input_too():
    spec = spec_of(Shaped(spaces.Box(-1, 1, (4,), np.float64), BOX))
    obs = to_obs(np.zeros(4), spec)
    assert obs["vector"].dtype == np.float32
    spec.check_obs(obs)


@pytest.mark.parametrize("done", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,))])
def test_actions_that_no_policy_can_make_are_refused(done):
    with pytest.raises((SettingsError, ValueError)):
        spec_of(Shaped(spaces.Box(-1, 1, (4,), np.float32), done))


def test_a_users_own_task_is_found_by_module_and_id(toy):
    env = make_env(toy)
    assert spec_of(env).period_s == 0.1


def test_an_unknown_id_or_module_is_said_to_be_unknown(toy):
    with pytest.raises(SettingsError, match="no such id"):
        make_env("wm_toy_dot:Nothing-v0")
    with pytest.raises(SettingsError, match="not installed"):
        make_env("no_such_module_here:Task-v0")


@pytest.mark.mujoco
def test_a_typo_names_the_nearest_task():
    with pytest.raises(SettingsError, match="did you mean 'walker_walk'"):
        make_env("walkr_walk")
