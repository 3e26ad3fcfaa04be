"""How long an action is held: what is usual for a task, what is asked for, what was trained at."""

import contextlib

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import sim
from sim.repeats import control_s, usual_repeat
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.library import evaluate as evaluations
from wm_core.library.run_folder import TrainSettings
from wm_core.library.sources import as_it_begins, find_experience
from wm_core.training.evaluate import open_env
from wm_core.training.repeats import repeat_at
from wm_core.training.repeats import usual_repeat as usual_of
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env, spec_of

pytestmark = pytest.mark.mujoco
SMALL = {"image_size": 16}


def spec_at(task, **settings) -> Spec:
    """The spec of ``task`` with small images."""
    env = EnvConfig(**(SMALL | settings))
    with contextlib.closing(make_env(task, env)) as made:
        return spec_of(made, env)


def test_every_task_of_the_suite_has_a_usual_repeat():
    assert {name: usual_repeat(name) for name in sim.SUITE_TASKS if usual_repeat(name) != 2} == {
        "ball_in_cup_catch": 4,
        "cartpole_balance": 8,
        "cartpole_balance_sparse": 8,
        "cartpole_swingup": 8,
        "cartpole_swingup_sparse": 8,
        "cheetah_run": 4,
        "reacher_easy": 4,
        "reacher_hard": 4,
    }
    assert [usual_repeat(name) for name in ("seek", "walker", "mine")] == [None] * 3


@pytest.mark.parametrize("name", ["acrobot_swingup", "cheetah_run", "finger_spin", "walker_run"])
def test_where_nothing_is_said_the_usual_repeat_is_taken(name):
    assert spec_at(name).period_s == pytest.approx(usual_repeat(name) * control_s(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sim.SUITE_TASKS, "seek", "seek_discrete", "recall"])
def test_every_task_takes_repeat_size_and_measurements(name):
    spec = spec_at(name, action_repeat=3, image_size=32, proprio=True)
    assert spec.period_s == pytest.approx(3 * control_s(name))
    assert repeat_at(name, spec.period_s) == 3
    assert spec.images["image"].shape == (32, 32, 3)
    assert spec.vectors["proprio"].size > 0


@pytest.mark.parametrize("name", ["seek_discrete", "cartpole_swingup"])
def test_a_task_takes_repeat_size_and_measurements(name):
    test_every_task_takes_repeat_size_and_measurements(name)


@pytest.mark.parametrize("name", sim.ROBOT_TASKS)
def test_a_robot_task_holds_its_actions_too(name):
    once, thrice = (spec_at(name, image_size=64, action_repeat=n) for n in (1, 3))
    assert thrice.period_s == pytest.approx(3 * once.period_s)
    assert thrice.inputs == once.inputs


def test_rewards_add_up_and_one_image_is_rendered_for_all():
    adapter, _ = open_env("cartpole_swingup", seed=0, env=EnvConfig(**SMALL, action_repeat=250))
    looks, image = [], adapter.env.unwrapped._camera.image
    adapter.env.unwrapped._camera.image = lambda data: looks.append(1) or image(data)
    states = [adapter.reset()]
    while not states[-1].is_last:
        states.append(adapter.step(np.ones(1, np.float32)))
    adapter.env.close()
    assert len(looks) == len(states) == 1000 // 250 + 1


def old(name, number):
    """What a run of an older version holds: the suite's own repeat of 2, and times ``number``."""
    spec = spec_at(name, action_repeat=2 * number)
    return spec, EnvConfig(**SMALL, action_repeat=number)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_older_runs_and_policies_act_at_the_rate_that_they_were_trained_at(number):
    spec, settings = old("cartpole_swingup", number)
    adapter, _ = open_env("cartpole_swingup", seed=0, spec=spec, env=settings)
    adapter.env.close()
    assert spec_of(adapter.env, settings).period_s == pytest.approx(0.02 * number)


def test_a_keyword_of_the_constructor_gives_way_to_the_rate_that_was_trained_at():
    spec, _ = old("walker_walk", 1)
    settings = EnvConfig(**SMALL, action_repeat=1, kwargs={"action_repeat": 3})
    adapter, _ = open_env("walker_walk", seed=0, spec=spec, env=settings)
    adapter.env.close()


def test_a_new_run_notes_its_repeat_and_an_old_one_stays_as_it_was(tmp_path):
    settings = TrainSettings(run=tmp_path / "run", task="cartpole_swingup", env=SMALL)
    spec, _ = find_experience(settings, None)
    assert as_it_begins(settings, spec).env.action_repeat == 8
    spec, env = old("cartpole_swingup", 1)
    resumed = {"spec": spec.model_dump(mode="json")}
    assert find_experience(settings.model_copy(update={"env": env}), resumed)[0] == spec


def test_a_spec_file_decides_the_repeat_and_another_one_is_refused(tmp_path):
    spec = spec_at("cartpole_swingup", action_repeat=4, proprio=True)
    file = tmp_path / "spec.json"
    file.write_text(spec.model_dump_json())
    settings = TrainSettings(run=tmp_path / "run", task="cartpole_swingup", spec=file)
    assert find_experience(settings, None) == (spec, None)
    assert as_it_begins(settings, spec).env.action_repeat == 4
    asked = settings.model_copy(update={"env": EnvConfig(action_repeat=8)})
    with pytest.raises(SettingsError, match=r"action_repeat 8 .*0.04 s is 4 control steps"):
        find_experience(asked, None)


def test_a_policy_is_not_evaluated_at_another_repeat():
    spec = spec_at("cartpole_swingup", action_repeat=4)
    with pytest.raises(SettingsError, match=r"env.action_repeat 8 does not fit the policy"):
        evaluations.check_repeat(
            "cartpole_swingup", EnvConfig(action_repeat=8), spec, "the policy"
        )


class Named(gymnasium.Env):
    """Names its usual repeat."""

    metadata = {"render_fps": 10, "render_modes": [], "action_repeat": 5}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


@pytest.fixture
def named():
    gymnasium.register("WmNamed-v0", Named)
    yield "WmNamed-v0"
    del gymnasium.registry["WmNamed-v0"]


def test_a_users_task_names_its_usual_repeat_in_its_metadata(named, monkeypatch):
    assert usual_of(named) == 5
    for settings, period_s in ((EnvConfig(), 0.5), (EnvConfig(action_repeat=1), 0.1)):
        assert spec_of(make_env(named, settings), settings).period_s == pytest.approx(period_s)
    monkeypatch.setitem(Named.metadata, "action_repeat", 2.5)
    with pytest.raises(SettingsError, match=r"action_repeat.* is 2.5, expected"):
        make_env(named)
