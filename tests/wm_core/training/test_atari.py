"""Games: frames that are skipped, joined and squeezed; lives and no-ops."""

import numpy as np
import pytest

from wm_core.contract.image import area_resize
from wm_core.training.atari import NOOPS, SKIP, make_game
from wm_core.training.evaluate import open_env
from wm_core.training.tasks import make_env, spec_of

pytest.importorskip("ale_py", reason="needs the extra atari")


@pytest.fixture
def game():
    made = []

    def make(name="ALE/Breakout-v5", **kwargs):
        made.append(make_game(name, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_a_game_by_its_id_has_a_spec_of_named_choices():
    env = make_env("ALE/Pong-v5")
    spec = spec_of(env)
    env.close()
    assert spec.images["image"].shape == (64, 64, 3)
    assert spec.period_s == pytest.approx(SKIP / 60)
    assert spec.action.discrete
    assert spec.action.names == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    adapter, _ = open_env("ALE/Pong-v5", seed=0)
    for _ in range(3):
        spec.check_obs(adapter.step(spec.action.random(np.random.default_rng(0))).obs)
    adapter.env.close()


def test_a_decision_takes_four_frames_and_shows_the_brighter_of_the_last_two(game):
    env = game()
    env.reset(seed=0)
    ale = env.unwrapped.ale
    for action in (1, 2, 3, 0, 2):
        state, before = ale.cloneState(), ale.getFrameNumber()
        seen, *_ = env.step(action)
        assert ale.getFrameNumber() == before + SKIP
        ale.restoreState(state)
        frames = [env.unwrapped.step(action)[0] for _ in range(SKIP)]
        np.testing.assert_array_equal(seen, area_resize(np.maximum(frames[2], frames[3]), 64, 64))


def test_the_seed_decides_how_long_a_game_idles(game):
    env, idled = game(), set()
    for seed in (*range(8), 3):
        _, info = env.reset(seed=seed)
        idled.add(info["episode_frame_number"])
        assert 1 <= info["episode_frame_number"] <= NOOPS
    assert 4 <= len(idled) <= 8
    first, again = (env.reset(seed=5)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("life_loss", [False, True])
def test_a_lost_life_ends_the_episode_only_where_that_was_asked_for(game, life_loss):
    env = game(life_loss=life_loss)
    _, info = env.reset(seed=0)
    lives = info["lives"]
    for _ in range(400):
        _, _, terminated, _, info = env.step(1)  # launches the ball and misses it
        if terminated:
            break
    assert terminated
    assert info["lives"] == (lives - 1 if life_loss else 0)


def test_gray_games_have_one_channel(game):
    env = game(gray=True, image_size=84)
    seen, _ = env.reset(seed=0)
    assert seen.shape == env.observation_space.shape == (84, 84, 1)
    assert spec_of(env).images["image"].channels == 1


def test_actions_are_sticky_only_where_that_was_asked_for(game):
    assert game().unwrapped.ale.getFloat("repeat_action_probability") == 0.0
    assert game(sticky=0.25).unwrapped.ale.getFloat("repeat_action_probability") == 0.25
