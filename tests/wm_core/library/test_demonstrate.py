"""Demonstrations are whole episodes of the expert, which a run can learn from."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.library.demonstrate import record_expert
from wm_core.store.reader import Store


class Line(gymnasium.Env):
    """A number that is drawn to 0 by the expert."""

    metadata: ClassVar = {"render_fps": 10, "render_modes": []}
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-1, 1)), 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x, self.t = self.x + float(action[0]), self.t + 1
        return np.array([self.x], np.float32), -abs(self.x), False, self.t >= 7, {}

    def expert_action(self):
        return np.array([-self.x], np.float32)


class Aimless(Line):
    expert_action = None


gymnasium.register("WmShownLine-v0", Line)
gymnasium.register("WmAimless-v0", Aimless)


def test_whole_episodes_of_the_expert_are_stored(tmp_path):
    ended = record_expert("WmShownLine-v0", tmp_path / "shown", episodes=3, seed=4)
    assert [episode.length for episode in ended] == [7, 7, 7]
    assert all(abs(episode.total) < 1e-6 for episode in ended)  # it is at 0 after one step
    store = Store(tmp_path / "shown", cache_bytes=0)
    store.refresh()
    (segment,) = store.segments
    steps = store.read(segment.rows(0, segment.length))
    assert len(steps) == 3 * 8
    assert (steps["policy_version"] == -1).all()
    (numbers,) = store.observe(steps).values()
    starts = numbers[::8, 0]
    np.testing.assert_allclose(2 * steps["action"][::8, 0], -starts, rtol=1e-5)
    assert len(set(starts.tolist())) == 3
    store.close()
    again = record_expert("WmShownLine-v0", tmp_path / "again", episodes=3, seed=4)
    assert again == ended


def test_a_task_without_an_expert_and_no_episode_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="no expert"):
        record_expert("WmAimless-v0", tmp_path / "shown", episodes=1)
    with pytest.raises(SettingsError, match="at least 1"):
        record_expert("WmShownLine-v0", tmp_path / "shown", episodes=0)
    assert not (tmp_path / "shown").exists()
